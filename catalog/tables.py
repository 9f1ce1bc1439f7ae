"""The columns of every parquet file in a dataset, and the one way to write and read them."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catalog import spill, storage
from catalog.errors import DatasetError

_SCORES = pa.map_(pa.string(), pa.float64())

GROUP = 65_536
"""Rows of a row group, where nothing else is said."""

_NAME = 32  # characters of a hash

_BATCH = 65_536  # rows held at a time where a file is gone through

_JUDGEMENT = [
    pa.field("status", pa.string()),  # ok | rejected:<rule> | failed:<error class>
    pa.field("value", pa.float64()),  # what the rule measured
    pa.field("threshold", pa.float64()),  # what it was judged by
    pa.field("detail", pa.string()),  # one line for a person
]

SOURCE = pa.schema(
    [
        pa.field("rank", pa.int64()),  # place in the order by resolution; null where not ok
        pa.field("uri", pa.string()),
        pa.field("offset", pa.int64()),  # bytes into a tar; null for a file of its own
        pa.field("row", pa.int64()),  # row of a parquet; null elsewhere
        pa.field("length", pa.int64()),  # bytes of the encoded image
        pa.field("sha256", pa.string()),
        pa.field("width", pa.int32()),  # pixels, after EXIF rotation
        pa.field("height", pa.int32()),
        pa.field("format", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("label", pa.string()),  # URI of the ground truth beside the image
        pa.field("label_sha256", pa.string()),
        pa.field("popularity", pa.float64()),
        pa.field("scores", _SCORES),
        pa.field("phash", pa.uint64()),  # perceptual hash; null where the scan was not asked for it
        pa.field("against", pa.string()),  # near_duplicate: sha256 of the kept one; filter: clause
        *_JUDGEMENT,
    ]
)

OF_SCAN_ALONE = ["scores", "phash", "against"]
"""Columns of a source that no plan holds."""

PLAN = pa.schema(
    [pa.field("unit", pa.int32()), *(f for f in SOURCE if f.name not in OF_SCAN_ALONE)]
)

MEASURES = [
    pa.field("chroma", pa.float64()),  # see catalog.source.quality.Measures; null: not decoded
    pa.field("sharpness", pa.float64()),
    pa.field("contrast", pa.float64()),
    pa.field("grey_tail", pa.float64()),
    pa.field("nsfw", pa.float64()),  # open_nsfw's score, 0..1; null where the recipe has no limit
]

_SAMPLE = [
    pa.field("key", pa.string()),
    pa.field("sha256", pa.string()),
    pa.field("offset", pa.int64()),  # bytes into the shard
    pa.field("length", pa.int64()),
    pa.field("block_sha256", pa.string()),
    pa.field("width", pa.int32()),  # pixels, as stored
    pa.field("height", pa.int32()),
    pa.field("source_width", pa.int32()),  # pixels, as found
    pa.field("source_height", pa.int32()),
    pa.field("caption", pa.string()),
    pa.field("parameters", pa.string()),  # JSON: what each detector drew
    pa.field("popularity", pa.float64()),
]

ROWS = pa.schema([*_SAMPLE, *MEASURES, *_JUDGEMENT])

MANIFEST = pa.schema([pa.field("rank", pa.int64()), pa.field("shard", pa.string()), *_SAMPLE])

REJECTS = pa.schema(
    [pa.field(name, pa.string()) for name in ("uri", "sha256")]
    + [SOURCE.field(name) for name in ("offset", "row", "width", "height", "against")]
    + _JUDGEMENT
)


def to_parquet(
    table: pa.Table, metadata: dict[str, Any] | None = None, *, row_group_size: int = GROUP
) -> bytes:
    """Return a table as parquet bytes; equal tables and metadata give equal bytes.

    Args:
        table: the rows.
        metadata: JSON values kept in the file's own key-value metadata.
        row_group_size: rows in a group, the smallest piece that a reader fetches.
    """
    sink = pa.BufferOutputStream()
    _write_groups(sink, table.schema, cut(table, row_group_size), metadata)
    return bytes(sink.getvalue())


def create_parquet(
    uri: str, table: pa.Table, metadata: dict[str, Any], *, row_group_size: int = GROUP
) -> None:
    """Create the file that `to_parquet` gives; one of the same bytes that stands there is no harm.

    Raises:
        FileExistsError: another one stands there.
    """
    with storage.temporary(uri) as path:
        _write_file(path, cut(table, row_group_size), table.schema, metadata)
        try:
            storage.publish(path, uri)
        except FileExistsError:
            if storage.sha256_file(uri) != storage.sha256_file(str(path)):
                raise


def create_named_parquet(folder: str, table: pa.Table, metadata: dict[str, Any]) -> str:
    """Create the file that `to_parquet` gives, in a folder; return its name, made of its hash."""
    with storage.temporary(storage.join(folder, "table.parquet")) as path:
        _write_file(path, cut(table), table.schema, metadata)
        name = f"{storage.sha256_file(str(path))[:_NAME]}.parquet"
        with suppress(FileExistsError):  # of the same bytes
            storage.publish(path, storage.join(folder, name))
    return name


def write_parquet(
    uri: str, schema: pa.Schema, groups: Iterable[pa.Table], metadata: dict[str, Any] | None = None
) -> None:
    """Write a table that need not fit into memory, one row group after the other, atomically.

    The bytes are those that `to_parquet` gives for groups of its `row_group_size`.
    """
    with storage.replacing(uri) as path:
        _write_file(path, groups, schema, metadata)


def _write_file(
    path: Path, groups: Iterable[pa.Table], schema: pa.Schema, metadata: dict[str, Any] | None
) -> None:
    with path.open("wb") as file:
        _write_groups(file, schema, groups, metadata)
        storage.sync_file(file)


def cut(table: pa.Table, rows: int = GROUP) -> Iterator[pa.Table]:
    """Yield a table in pieces of so many rows; an empty one is one piece."""
    return (table.slice(start, rows) for start in range(0, max(table.num_rows, 1), rows))


def _write_groups(
    sink: Any, schema: pa.Schema, groups: Iterable[pa.Table], metadata: dict[str, Any] | None
) -> None:
    pairs = {name: json.dumps(value, sort_keys=True) for name, value in (metadata or {}).items()}
    with pq.ParquetWriter(sink, schema.with_metadata(pairs), compression="zstd") as writer:
        for group in groups:
            # How a column is cut into chunks in memory would show in the pages of the file.
            whole = group.replace_schema_metadata(pairs).combine_chunks()
            writer.write_table(whole, row_group_size=max(whole.num_rows, 1))


def open_parquet(uri: str) -> pq.ParquetFile:
    """Open a parquet file of a dataset; of a remote one only what is asked for is fetched.

    Raises:
        DatasetError: it is missing or damaged.
    """
    path = storage.local_path(uri)
    try:
        source = path if path is not None else storage.open_ranges(uri)
        return pq.ParquetFile(source, memory_map=path is not None, pre_buffer=path is None)
    except FileNotFoundError as error:
        raise DatasetError(f"{uri} does not exist") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{uri} is not a readable parquet file: {error}") from error


def count_values(column: pa.ChunkedArray) -> dict[str, int]:
    """Count the values of a column of strings, nulls apart, by value in order."""
    counted = {
        row["values"]: row["counts"] for row in column.drop_null().value_counts().to_pylist()
    }
    return dict(sorted(counted.items()))


def parse_parquet(data: bytes, columns: list[str]) -> pa.Table:
    """Return columns of a parquet file's bytes, without its metadata."""
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        return file.read(columns, use_threads=False).select(columns).replace_schema_metadata(None)


def read_table(uri: str, columns: list[str] | None = None) -> pa.Table:
    """Read a parquet file of a dataset whole; raises DatasetError as `open_parquet` does.

    A large one lies on disk, see `catalog.spill`.
    """
    with open_parquet(uri) as file:
        if file.metadata.num_rows <= spill.ROWS_IN_MEMORY:
            return file.read(columns=columns)
        metadata = file.schema_arrow.metadata
        names = file.schema_arrow.names if columns is None else columns
        return _read_batches(file, names, lambda rows: rows).replace_schema_metadata(metadata)


def read_first(uri: str, count: int) -> pa.Table:
    """Read the first `count` rows, or all where there are fewer; no group behind them is read."""
    with open_parquet(uri) as file:
        groups = (file.metadata.row_group(at).num_rows for at in range(file.num_row_groups))
        before = np.cumsum([0, *groups])[:-1]  # rows in front of each group
        return file.read_row_groups(np.flatnonzero(before < count).tolist()).slice(0, count)


def read_where(uri: str, columns: list[str], keep: Callable[[pa.Table], Any]) -> pa.Table:
    """Read the rows that `keep` masks, without holding the others; metadata is left out."""
    with open_parquet(uri) as file:
        return _read_batches(file, columns, lambda rows: rows.filter(keep(rows)))


def _read_batches(
    file: pq.ParquetFile, columns: list[str], choose: Callable[[pa.Table], pa.Table]
) -> pa.Table:
    """Return what `choose` leaves of each batch; metadata is left out."""
    schema = pa.schema([file.schema_arrow.field(name) for name in columns])
    batches = file.iter_batches(_BATCH, columns=columns)
    rows = (pa.Table.from_batches([batch]).select(columns) for batch in batches)
    return spill.settle(schema, (choose(one.replace_schema_metadata(None)) for one in rows))


def read_metadata(uri: str) -> dict[str, Any]:
    """Read the JSON values that `to_parquet` was given as metadata."""
    with open_parquet(uri) as file:
        pairs = file.schema_arrow.metadata or {}
    return {name.decode(): json.loads(value) for name, value in pairs.items()}
