"""Near duplicates: banding finds the pairs that comparing all finds, and no chain is followed."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage

from catalog.images import decode
from catalog.source import near_duplicates
from catalog.source.near_duplicates import (
    HASH_BITS,
    MAX_DISTANCE,
    Hashes,
    bands,
    find_near_duplicates,
    near_pairs,
    perceptual_hash,
)
from tests.photographs import photographs


def some_hashes(seed: int, count: int = 300, flips: int = 11) -> Hashes:
    """Random hashes, half of them others with a few bits flipped, shuffled."""
    draws = np.random.default_rng(seed)
    hashes = draws.integers(0, 2**64, count, dtype=np.uint64)
    for at in range(count // 2, count):
        bits = draws.choice(HASH_BITS, draws.integers(0, flips), replace=False)
        mask = sum(1 << int(bit) for bit in bits)
        hashes[at] = hashes[draws.integers(0, at)] ^ np.uint64(mask)
    return draws.permutation(hashes)


def distances(hashes: Hashes) -> np.ndarray:
    return np.bitwise_count(hashes[:, None] ^ hashes[None]).astype(int)


@given(st.integers(0, 10**6), st.integers(0, MAX_DISTANCE))
def test_the_pairs_are_those_that_comparing_all_finds_each_once(seed: int, distance: int) -> None:
    hashes = np.random.default_rng(seed).permutation(np.unique(some_hashes(seed, 60)))
    apart = distances(hashes)
    wanted = {
        (late, early, int(apart[late, early]))
        for late, early in zip(*np.nonzero(np.tril(apart <= distance, -1)), strict=True)
    }
    found = list(zip(*(column.tolist() for column in near_pairs(hashes, distance)), strict=True))
    assert set(found) == wanted
    assert len(found) == len(wanted)


@given(st.integers(0, 10**6), st.integers(0, MAX_DISTANCE))
def test_each_is_kept_or_near_the_nearest_that_is_kept(seed: int, distance: int) -> None:
    hashes = some_hashes(seed, 60)
    apart = distances(hashes)
    kept: list[int] = []
    nearest, found = find_near_duplicates(hashes, distance)
    for at in range(len(hashes)):
        near = [(int(apart[at, other]), other) for other in kept if apart[at, other] <= distance]
        again = int(np.argmin(apart[at]))  # the first with this hash
        if again < at and again not in kept:
            assert (found[at], nearest[at]) == (found[again], nearest[again])
        else:
            assert (int(found[at]), int(nearest[at])) == min(near, default=(0, -1))
        if not near:
            kept.append(at)


@given(st.integers(0, 10**6), st.integers(0, MAX_DISTANCE), st.integers(3, 40))
def test_a_crowd_is_decided_in_parts_to_the_same_end(seed: int, distance: int, most: int) -> None:
    hashes = some_hashes(seed, 120, flips=6)
    whole = find_near_duplicates(hashes, distance)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_duplicates, "_PAIRS", most)
        patch.setattr(near_duplicates, "_CANDIDATES", 16)
        parts = find_near_duplicates(hashes, distance)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_chain_keeps_every_few_steps() -> None:
    """Each frame is near the next; a group of all would keep the first alone."""
    frames = np.array([(1 << step) - 1 for step in range(13)], np.uint64)
    nearest, _ = find_near_duplicates(frames, 4)
    assert np.flatnonzero(nearest < 0).tolist() == [0, 5, 10]
    assert nearest.tolist() == [-1, 0, 0, 0, 0, -1, 5, 5, 5, 5, -1, 10, 10]


def test_many_equal_hashes_cost_no_pairs_of_each_with_each() -> None:
    hashes = np.zeros(200_000, np.uint64)
    nearest, apart = find_near_duplicates(hashes, 6)
    assert nearest[0] == -1
    assert (nearest[1:] == 0).all()
    assert not apart.any()


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_is_near_to_nothing(count: int) -> None:
    nearest, _ = find_near_duplicates(np.zeros(count, np.uint64), 6)
    assert nearest.tolist() == [-1] * count


@pytest.mark.parametrize("distance", [-1, MAX_DISTANCE + 1])
def test_a_distance_out_of_range_is_refused(distance: int) -> None:
    with pytest.raises(ValueError, match=r"not in 0\.\.8"):
        near_pairs(np.zeros(2, np.uint64), distance)


@pytest.mark.parametrize("distance", range(MAX_DISTANCE + 1))
def test_bands_share_out_all_bits_and_so_many_agree_at_least(distance: int) -> None:
    masks, agreeing = bands(distance)
    assert np.bitwise_or.reduce(masks) == np.uint64(2**64 - 1)
    assert sum(int(np.bitwise_count(mask)) for mask in masks) == HASH_BITS
    assert len(masks) - agreeing == distance


def test_a_photograph_is_near_to_its_copies_and_far_from_others() -> None:
    pictures = [path.read_bytes() for path in photographs()[::8]]
    hashes = [perceptual_hash(decode(data, at_least=128).pixels) for data in pictures]
    others = distances(np.array(hashes, np.uint64))[np.triu_indices(len(hashes), 1)]
    assert others.min() > 2 * MAX_DISTANCE
    for data, hashed in zip(pictures, hashes, strict=True):
        picture = PILImage.open(io.BytesIO(data)).convert("RGB")
        buffer = io.BytesIO()
        picture.resize((picture.width // 2, picture.height // 2)).save(buffer, "JPEG", quality=40)
        again = perceptual_hash(decode(buffer.getvalue(), at_least=128).pixels)
        assert (again ^ hashed).bit_count() <= 4
