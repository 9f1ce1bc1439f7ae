"""Equal tables are equal bytes however they lie in memory, and a reader takes only what it asks."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from catalog import storage, tables
from catalog.sample import sha256_hex

ROWS = 2_500
TABLE = pa.table({"number": range(ROWS), "text": [f"text of row {at}" for at in range(ROWS)]})


def cut(table: pa.Table, every: int) -> pa.Table:
    return pa.concat_tables([table.slice(at, every) for at in range(0, table.num_rows, every)])


@pytest.mark.parametrize("every", [1, 7, 100, 2_499])
@pytest.mark.parametrize("group", [100, 1_024, 65_536])
def test_chunks_in_memory_do_not_show(every: int, group: int, tmp_path: Path) -> None:
    whole = tables.to_parquet(TABLE, {"a": 1}, row_group_size=group)
    assert tables.to_parquet(cut(TABLE, every), {"a": 1}, row_group_size=group) == whole
    groups = (cut(TABLE, every).slice(at, group) for at in range(0, ROWS, group))
    uri = str(tmp_path / "new" / "file.parquet")
    tables.write_parquet(uri, TABLE.schema, groups, {"a": 1})
    assert Path(uri).read_bytes() == whole
    assert [path.name for path in Path(uri).parent.iterdir()] == ["file.parquet"]


def test_an_empty_table_is_a_file_of_no_rows() -> None:
    data = tables.to_parquet(TABLE.slice(0, 0), {"a": [1]})
    read = pq.read_table(io.BytesIO(data))
    assert (read.num_rows, read.schema.names) == (0, TABLE.schema.names)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    path.write_bytes(b"before")

    def groups() -> Any:
        yield TABLE
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tables.write_parquet(str(path), TABLE.schema, groups())
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def stored(tmp_path: Path) -> str:
    path = tmp_path / "table.parquet"
    path.write_bytes(tables.to_parquet(TABLE, {"a": 1}, row_group_size=100))
    return str(path)


@pytest.mark.parametrize("count", [1, 99, 100, 101, 2_500, 9_999])
def test_the_first_rows(stored: str, count: int) -> None:
    read = tables.read_first(stored, count)
    assert read["number"].to_pylist() == list(range(min(count, ROWS)))


@pytest.mark.parametrize("least", [0, 1_234, ROWS])
def test_rows_that_a_mask_keeps(stored: str, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_BATCH", 300)

    def keep(rows: pa.Table) -> pa.ChunkedArray:
        return pc.greater_equal(rows["number"], least)

    read = tables.read_where(stored, ["text", "number"], keep)
    assert read.schema.names == ["text", "number"]
    assert read["number"].to_pylist() == list(range(least, ROWS))


def test_values_are_counted_in_order() -> None:
    column = pa.chunked_array([["b", "a"], ["b"]])
    assert list(tables.count_values(column).items()) == [("a", 1), ("b", 2)]


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Count the bytes that fsspec's files fetch."""
    from s3fs.core import S3File

    sizes: list[int] = []
    fetch = S3File._fetch_range

    def counted(self: Any, start: int, end: int) -> bytes:
        sizes.append(end - start)
        return bytes(fetch(self, start, end))

    monkeypatch.setattr(S3File, "_fetch_range", counted)
    return lambda: sum(sizes)


def test_of_a_remote_plan_only_a_unit_is_fetched(s3: str, fetched: Callable[[], int]) -> None:
    hashes = [sha256_hex(b"%d" % at) for at in range(20_000)]
    data = tables.to_parquet(pa.table({"sha256": hashes}), row_group_size=500)
    uri = f"{s3}/plan.parquet"
    storage.write_atomic(uri, data)
    with tables.open_parquet(uri) as file:
        assert file.read_row_group(7)["sha256"].to_pylist() == hashes[3_500:4_000]
    assert 0 < fetched() < len(data) / 4
