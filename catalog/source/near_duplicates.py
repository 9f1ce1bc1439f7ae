"""Images that look alike: perceptual hashes, and the pairs of them within a Hamming distance.

Banding: cut 64 bits into d + k bands. Two hashes that differ in at most d bits agree in k whole
bands at least, so pairs are looked for among those that agree in some choice of k bands. With k
such that k bands hold 17 bits or more, three million hashes give few false candidates.

No chains: an image is a near duplicate of one that is kept, never of another near duplicate. So a
rejected image is always within the distance of the one that stands for it, and a long row of small
steps (frames of a film) keeps an image every few steps, where union-find would keep one in all.
"""

from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import TypeAlias

import imagehash
import numpy as np
from jaxtyping import Int64, UInt8, UInt64
from PIL import Image as PILImage

from catalog.images import Image

HASH_BITS = 64
MAX_DISTANCE = 8
"""Bits; beyond it, unrelated photographs come near, and the search takes hours."""

Hashes: TypeAlias = UInt64[np.ndarray, " n"]
Places: TypeAlias = Int64[np.ndarray, " p"]
Distances: TypeAlias = UInt8[np.ndarray, " p"]

_KEY_BITS = 17  # that the chosen bands hold at least
_PAIRS = 1 << 21  # near pairs that are held at a time, and walked
_PLACE_BITS = 40
_CANDIDATES = 1 << 22  # pairs that are compared at a time: 32 MiB an array of places


class CrowdError(Exception):
    """More images look alike than are compared pair by pair."""


def perceptual_hash(pixels: Image) -> int:
    """Return the pHash of an image: 64 bits, the signs of its lowest frequencies (DCT)."""
    bits = imagehash.phash(PILImage.fromarray(pixels)).hash
    return int.from_bytes(np.packbits(bits.reshape(-1)).tobytes(), "big")


def find_near_duplicates(hashes: Hashes, distance: int) -> tuple[Places, Distances]:
    """Find for each image the better one that it is a near duplicate of.

    Args:
        hashes: best-ranked image first.
        distance: bits that may differ, 0..8.

    Returns:
        For each image the place of the kept image that is nearest to it (of equally near ones the
        best), and their distance; -1 and 0 for an image that is itself kept. Of equal hashes the
        best decides for all.
    """
    _, first, which = np.unique(hashes, return_index=True, return_inverse=True)
    ranked = np.sort(first)  # of equal hashes the best alone is searched with
    stands, apart = _find_among_distinct(hashes[ranked], distance)
    shown = np.searchsorted(ranked, first[which])  # of each image, the one with an equal hash
    kept = stands[shown] < 0
    nearest = ranked[np.where(kept, shown, stands[shown])]
    nearest[kept & (ranked[shown] == np.arange(len(hashes)))] = -1
    return nearest, apart[shown]


def near_pairs(
    hashes: Hashes, distance: int, most: int | None = None
) -> tuple[Places, Places, Distances]:
    """Return each pair of places (later, earlier) whose distinct hashes differ in so few bits.

    Raises:
        CrowdError: there are more than `most`.
    """
    if not 0 <= distance <= MAX_DISTANCE:
        raise ValueError(f"distance {distance} bits is not in 0..{MAX_DISTANCE}")
    masks, agreeing = bands(distance)
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8))]
    found = 0
    for chosen in combinations(masks, agreeing):
        mask = np.bitwise_or.reduce(chosen)
        for one, other in _equal_pairs(hashes & mask):
            differ = hashes[one] ^ hashes[other]
            apart = np.bitwise_count(differ)
            near = np.flatnonzero(apart <= distance)
            near = near[_first_agreeing(differ[near], masks, agreeing) == mask]  # seen once only
            one, other = one[near], other[near]
            parts.append((np.maximum(one, other), np.minimum(one, other), apart[near]))
            found += len(near)
            if most is not None and found > most:
                raise CrowdError
    worse, better, apart = (np.concatenate(column) for column in zip(*parts, strict=True))
    return worse, better, apart


def bands(distance: int) -> tuple[list[np.uint64], int]:
    """Return the masks of the bands for a distance, and how many of them must agree."""
    agreeing = 1
    while HASH_BITS * agreeing // (distance + agreeing) < _KEY_BITS:
        agreeing += 1
    cuts = np.linspace(0, HASH_BITS, distance + agreeing + 1).round().astype(int).tolist()
    masks = [np.uint64(((1 << (end - start)) - 1) << start) for start, end in pairwise(cuts)]
    return masks, agreeing


def _find_among_distinct(hashes: Hashes, distance: int) -> tuple[Places, Distances]:
    try:
        worse, better, apart = near_pairs(hashes, distance, most=_PAIRS)
    except CrowdError:  # thousands of images look alike: their pairs would fill the memory
        kept = np.ones(len(hashes), bool)
        _keep(hashes, np.arange(len(hashes)), distance, kept)
        return _nearest_kept(hashes, kept, distance)
    kept = _kept(worse, better, len(hashes))
    stands = kept[better] & ~kept[worse]
    worse, better, apart = worse[stands], better[stands], apart[stands]
    order = np.lexsort((better, apart, worse))
    best = order[np.flatnonzero(np.diff(worse[order], prepend=-1))]
    nearest = np.full(len(hashes), -1, np.int64)
    nearest[worse[best]] = better[best]
    found = np.zeros(len(hashes), np.uint8)
    found[worse[best]] = apart[best]
    return nearest, found


def _keep(hashes: Hashes, places: Places, distance: int, kept: np.ndarray) -> None:
    """Decide which of some images are kept; they are ranked, and near to none kept before them.

    Where they are too many that look alike, the better half is decided first: what is near to one
    that it keeps needs no comparing with any other.
    """
    try:
        worse, better, _ = near_pairs(hashes[places], distance, most=_PAIRS)
        kept[places] = _kept(worse, better, len(places))
    except CrowdError:
        first, second = np.array_split(places, 2)
        _keep(hashes, first, distance, kept)
        near = np.zeros(len(second), bool)
        for one, _, _ in _cross_pairs(hashes[second], hashes[first[kept[first]]], distance):
            near[one] = True
        kept[second[near]] = False
        _keep(hashes, second[~near], distance, kept)


def _nearest_kept(hashes: Hashes, kept: np.ndarray, distance: int) -> tuple[Places, Distances]:
    lost, stand = np.flatnonzero(~kept), np.flatnonzero(kept)
    best = np.full(len(lost), np.iinfo(np.int64).max)  # bits apart, then the place
    for one, other, apart in _cross_pairs(hashes[lost], hashes[stand], distance):
        better = stand[other] < lost[one]
        one, place, apart = one[better], stand[other[better]], apart[better]
        np.minimum.at(best, one, (apart.astype(np.int64) << _PLACE_BITS) | place)
    nearest, found = np.full(len(hashes), -1, np.int64), np.zeros(len(hashes), np.uint8)
    nearest[lost], found[lost] = best & ((1 << _PLACE_BITS) - 1), best >> _PLACE_BITS
    return nearest, found


def _cross_pairs(
    ones: Hashes, others: Hashes, distance: int
) -> Iterator[tuple[Places, Places, Distances]]:
    """Yield the pairs of places in two arrays that are near, some of them several times."""
    masks, agreeing = bands(distance)
    for chosen in combinations(masks, agreeing):
        mask = np.bitwise_or.reduce(chosen)
        order = np.argsort(others & mask)
        keys = (others & mask)[order]
        left, right = (np.searchsorted(keys, ones & mask, side) for side in ("left", "right"))
        sums = np.concatenate(([0], np.cumsum(right - left)))
        at = 0
        while at < len(ones):
            end = max(at + 1, int(np.searchsorted(sums, sums[at] + _CANDIDATES, side="right")) - 1)
            counts = (right - left)[at:end]
            one = np.repeat(np.arange(at, end), counts)
            step = np.arange(len(one)) - np.repeat(sums[at:end] - sums[at], counts)
            other = order[left[one] + step]
            apart = np.bitwise_count(ones[one] ^ others[other])
            near = np.flatnonzero(apart <= distance)
            yield one[near], other[near], apart[near]
            at = end


def _first_agreeing(
    differ: UInt64[np.ndarray, " p"], masks: list[np.uint64], agreeing: int
) -> UInt64[np.ndarray, " p"]:
    """Return, of the bands in which each pair agrees, the first so many, as one mask."""
    joined = np.zeros(len(differ), np.uint64)
    count = np.zeros(len(differ), np.int64)
    for mask in masks:
        agrees = ((differ & mask) == 0) & (count < agreeing)
        joined[agrees] |= mask
        count += agrees
    return joined


def _equal_pairs(keys: UInt64[np.ndarray, " n"]) -> Iterator[tuple[Places, Places]]:
    """Yield all pairs of places with equal keys, about `_CANDIDATES` at a time."""
    order = np.argsort(keys)
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    ends = np.repeat(np.append(starts[1:], len(keys)), np.diff(np.append(starts, len(keys))))
    behind = ends - np.arange(len(keys)) - 1  # how many equal keys follow each
    sums = np.concatenate(([0], np.cumsum(behind)))
    at = 0
    while at < len(keys):
        end = max(at + 1, int(np.searchsorted(sums, sums[at] + _CANDIDATES, side="right")) - 1)
        left = np.repeat(np.arange(at, end), behind[at:end])
        step = np.arange(len(left)) - np.repeat(sums[at:end] - sums[at], behind[at:end])
        yield order[left], order[left + step + 1]
        at = end


def _kept(worse: Places, better: Places, count: int) -> np.ndarray:
    """Walk from the best image on: one is kept unless a better one that is kept is near it."""
    kept = np.ones(count, bool)
    order = np.argsort(worse)
    for this, other in zip(worse[order].tolist(), better[order].tolist(), strict=True):
        if kept[other]:
            kept[this] = False
    return kept
