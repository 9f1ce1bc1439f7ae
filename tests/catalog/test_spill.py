"""What is put together on disk is what memory would give."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog import spill, tables


def some_table(rows: int = 20, chunk: int = 7) -> pa.Table:
    columns = {
        "at": list(range(rows)),
        "text": [None if at % 5 == 0 else f"row {at}" for at in range(rows)],
        "scores": [[("a", at / 2)] if at % 3 else [] for at in range(rows)],
    }
    schema = pa.schema({"at": pa.int64(), "text": pa.string(), "scores": tables._SCORES})
    whole = pa.table(columns, schema=schema)
    return pa.concat_tables([whole.slice(at, chunk) for at in range(0, rows, chunk)])


@given(st.lists(st.integers(0, 19), max_size=40))
def test_rows_are_those_at_the_positions(positions):
    table = some_table()
    taken = spill.take(table, np.array(positions, np.int64))
    assert taken.equals(table.take(pa.array(positions, pa.int64())))


@pytest.mark.usefixtures("on_disk")
@pytest.mark.parametrize("order", [[4, 19, 0, 7, 7, 3, 2, 18, 1], list(range(19, -1, -1))])
def test_a_large_table_lies_on_disk(order):
    table = some_table()
    before = pa.total_allocated_bytes()
    taken = spill.take(table, np.array(order))
    assert pa.total_allocated_bytes() == before
    assert taken.equals(table.take(pa.array(order)))


@pytest.mark.usefixtures("on_disk")
def test_nothing_is_left_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    taken = spill.take(some_table(), np.arange(20)[::-1])
    assert not list(tmp_path.iterdir())
    assert taken["at"].to_pylist() == list(range(19, -1, -1))


def test_consecutive_rows_are_not_copied():
    table = some_table()
    before = pa.total_allocated_bytes()
    assert spill.take(table, np.arange(3, 17)).equals(table.slice(3, 14))
    assert pa.total_allocated_bytes() == before


def test_null_is_no_hit():
    mask = pa.chunked_array([[True, None], [False, True]])
    assert spill.where(some_table(4), mask)["at"].to_pylist() == [0, 3]


@pytest.mark.usefixtures("on_disk")
def test_a_file_is_read_as_it_was_written(tmp_path):
    table, uri = some_table(), str(tmp_path / "table.parquet")
    tables.write_parquet(uri, table.schema, tables.cut(table, 4), {"told": [1]})
    read = tables.read_table(uri, ["text", "at"])
    assert read.equals(table.select(["text", "at"]))
    assert read.schema.metadata == {b"told": b"[1]"}


def test_long_texts_are_put_together_few_at_a_time(monkeypatch):
    monkeypatch.setattr(spill, "_BYTES", 3000)
    table = pa.table({"text": ["x" * 1000] * 10})
    taken = spill.take(table, np.arange(10)[::-1])
    assert taken.equals(table)
    assert [len(chunk) for chunk in taken["text"].chunks if len(chunk)] == [2] * 5
