"""The order is total, whatever the order of listing; subsets nest; sizes have names."""

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import CatalogError
from catalog.source.ranking import (
    format_size,
    parse_size,
    parse_subset,
    rank,
    subset_name,
    subset_ranks,
    unit_id,
)

SHA = st.text("0123456789abcdef", min_size=4, max_size=4)
ROWS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 4), SHA), max_size=30, unique_by=lambda row: row[2]
)
SCHEMA = pa.schema([("width", pa.int32()), ("height", pa.int32()), ("sha256", pa.string())])


def table(rows: list[tuple[int, int, str]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    return pa.table([list(column) for column in columns], schema=SCHEMA)


@given(ROWS, st.randoms(use_true_random=False))
def test_rank_does_not_depend_on_the_order_of_rows(rows: Any, shuffler: random.Random) -> None:
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    assert rank(table(shuffled)).equals(rank(table(rows)))


@given(ROWS)
def test_rank_is_pixels_then_side_then_sha256(rows: Any) -> None:
    wanted = sorted(rows, key=lambda row: (-row[0] * row[1], -min(row[:2]), row[2]))
    assert rank(table(rows)).equals(table(wanted))


def test_rank_counts_pixels_beyond_32_bits() -> None:
    rows = [(2_000, 2_000, "a"), (70_000, 70_000, "b")]
    assert rank(table(rows))["sha256"].to_pylist() == ["b", "a"]


@given(
    st.integers(1, 500),
    st.integers(0, 2**32),
    st.sampled_from(["top", "stratified"]),
    st.data(),
)
def test_subsets_nest_ascend_and_have_their_size(
    total: int, seed: int, policy: Any, data: Any
) -> None:
    large = data.draw(st.integers(1, total))
    small = data.draw(st.integers(1, large))
    chosen = [subset_ranks(total, count, policy=policy, seed=seed) for count in (small, large)]
    assert set(chosen[0]) <= set(chosen[1])
    for positions, count in zip(chosen, (small, large), strict=True):
        assert len(set(positions)) == count
        assert (np.diff(positions) > 0).all()
        assert positions[0] >= 0
        assert positions[-1] < total


def test_top_is_a_prefix() -> None:
    assert subset_ranks(10, 4, policy="top", seed=3).tolist() == [0, 1, 2, 3]


def test_stratified_draws_from_every_resolution_equally_and_by_seed() -> None:
    chosen = subset_ranks(1_000, 100, policy="stratified", seed=0)
    assert [int(((chosen // 100) == stratum).sum()) for stratum in range(10)] == [10] * 10
    other = subset_ranks(1_000, 100, policy="stratified", seed=1)
    assert chosen.tolist() != other.tolist()


@pytest.mark.parametrize("count", [0, -1, 11])
@pytest.mark.parametrize("policy", ["top", "stratified"])
def test_an_impossible_subset_is_refused(count: int, policy: Any) -> None:
    with pytest.raises(CatalogError, match="cannot be taken"):
        subset_ranks(10, count, policy=policy, seed=0)


@given(st.integers(1, 10**9))
def test_sizes_round_trip(count: int) -> None:
    assert parse_size(format_size(count)) == count


@pytest.mark.parametrize(
    ("text", "count"), [("1000", 1000), ("1k", 1000), ("3M", 3_000_000), (" 50K ", 50_000)]
)
def test_sizes_are_read(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "k", "0", "0k", "-1", "1.5k", "1g", "²", "1_000", "one"])
def test_no_size(text: str) -> None:
    with pytest.raises(CatalogError, match="1000, 1k or 3M"):
        parse_size(text)


@given(SHA, st.lists(SHA, min_size=1, max_size=5))
def test_unit_ids_name_recipe_images_and_order(fingerprint: str, hashes: list[str]) -> None:
    made = unit_id(fingerprint, hashes)
    assert len(made) == 32
    assert made == unit_id(fingerprint, tuple(hashes))
    assert made != unit_id(fingerprint + "0", hashes)
    assert made != unit_id(fingerprint, [*hashes, hashes[0]])
    if hashes != hashes[::-1]:
        assert made != unit_id(fingerprint, hashes[::-1])


@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1])
def test_a_subsets_name_tells_how_it_was_cut(seed: int) -> None:
    assert parse_subset(subset_name(10_000, policy="top", seed=seed)) == (10_000, "top", 0)
    drawn = subset_name(1_234, policy="stratified", seed=seed)
    assert parse_subset(drawn) == (1_234, "stratified", seed)


@pytest.mark.parametrize(
    "name", ["", "all", "k", "10k-", "10k-7", "10k-stratified-", "10k-stratified-x", "1k-top-0"]
)
def test_what_names_no_subset_is_refused(name: str) -> None:
    with pytest.raises(CatalogError):
        parse_subset(name)
