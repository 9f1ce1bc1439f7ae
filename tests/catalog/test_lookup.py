"""Values are found in another column as Arrow finds them, in one that is long, too."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog import lookup

HASHES = st.lists(st.none() | st.text("0f", min_size=1, max_size=3), max_size=12)


def column(values: list[str | None], chunk: int = 3) -> pa.ChunkedArray:
    chunks = [values[at : at + chunk] for at in range(0, len(values), chunk)]
    return pa.chunked_array(chunks, pa.string())


@pytest.mark.parametrize("long", [1 << 30, 0])
@given(HASHES, HASHES)
def test_long_columns_are_looked_up_as_short_ones(long, values, others):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup, "_LONG", long)
        found = lookup.index_in(column(values), column(others)).to_pylist()
        among = lookup.is_in(column(values), column(others)).to_pylist()
    assert found == [others.index(one) if one in others else None for one in values]
    assert among == [one in others for one in values]


@given(HASHES, HASHES)
def test_hashes_have_what_is_among_them_and_no_null(values, others):
    found = lookup.Hashes(column(others)).has(column(values))
    assert found.to_pylist() == [one is not None and one in others for one in values]


def test_a_set_of_more_than_two_gibibytes_is_no_limit():
    """One array of Arrow's plain texts holds no more; here a long one stands for many."""
    long = pa.array(["a" * (1 << 28), "b"])
    others = pa.chunked_array([long] * 9)
    with pytest.raises(pa.ArrowInvalid, match="overflow"):
        others.combine_chunks()
    found = lookup.index_in(pa.chunked_array([["b", "c"]]), others)
    assert found.to_pylist() == [1, None]
