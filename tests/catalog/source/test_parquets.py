"""Images in parquet tables: a row group is read once for all of a unit's images in it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog.errors import SourceError
from catalog.source.parquets import read_parquet_row, scan_parquet
from catalog.source.parts import reader_of

ROWS, IN_A_GROUP = 40, 10


@pytest.fixture(params=["bytes", "struct"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return a table of four row groups; images are bytes, or what `datasets` has for them."""
    images: list[Any] = [b"image %d" % number for number in range(ROWS)]
    if request.param == "struct":
        images = [{"bytes": image, "path": None} for image in images]
    path = tmp_path / "images.parquet"
    pq.write_table(pa.table({"image": images}), path, row_group_size=IN_A_GROUP)
    return str(path)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Keep which row groups are read."""
    seen: list[int] = []
    read_row_group = pq.ParquetFile.read_row_group

    def counting(file: pq.ParquetFile, group: int, *rest: Any) -> pa.Table:
        seen.append(group)
        return read_row_group(file, group, *rest)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting)
    return seen


def rows_of(table: str, numbers: list[int]) -> list[dict[str, Any]]:
    return [{"uri": table, "row": number, "offset": None} for number in numbers]


def test_a_row_group_is_read_once_by_all_threads(table: str, reads: list[int]) -> None:
    numbers = [39, 3, 12, 7, 31, 0, 19, 9, 38]  # by rank, not by place
    rows = rows_of(table, numbers)
    read = reader_of(rows)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read, rows))
    assert found == [b"image %d" % number for number in numbers]
    assert sorted(reads) == [0, 1, 3]
    assert read(rows[0]) == b"image 39"  # again: it is not held any more
    assert sorted(reads) == [0, 1, 3, 3]


def test_a_row_that_was_not_named_is_read_alone(table: str, reads: list[int]) -> None:
    read = reader_of(rows_of(table, [1, 2]))
    assert read(rows_of(table, [5])[0]) == b"image 5"
    assert read_parquet_row(table, ROWS - 1) == b"image 39"
    assert reads == [0, 3]


def test_rows_that_are_gone_are_told(table: str) -> None:
    (row,) = rows_of(table, [ROWS])
    for read in (reader_of([row]), reader_of([])):
        with pytest.raises(SourceError, match="fewer rows than when it was scanned"):
            read(row)
    pq.write_table(pa.table({"image": pa.array([None, b"one"], pa.binary())}), table)
    gone, there = rows_of(table, [0, 1])
    read = reader_of([gone, there])
    assert read(there) == b"one"
    with pytest.raises(SourceError, match="no image in row 0"):
        read(gone)


def test_a_path_with_a_signature_is_refused_and_not_kept(tmp_path: Path) -> None:
    signed = "https://host.example/a.png?X-Amz-Signature=hunter2"
    pq.write_table(pa.table({"path": [signed]}), tmp_path / "paths.parquet")
    table = str(tmp_path / "paths.parquet")
    (row,) = scan_parquet(table, allowed=["https://host.example"])
    assert row.status == "rejected:outside_source"
    assert "password or a signature" in str(row.detail)
    assert "hunter2" not in repr(row)
