"""Parquet tables that hold many images, or name them."""

import io
import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from catalog import storage
from catalog.errors import ImageError, SourceError
from catalog.source.presence import blame
from catalog.source.rows import SourceRow, lost, measure, rejected_row, with_said
from catalog.source.secrets import without_secrets
from catalog.source.texts import is_caption_name, printable, read_fields

BYTES_COLUMNS = ("image", "jpg", "png", "bytes", "image_bytes")
PATH_COLUMNS = ("path", "image_path", "file_name", "uri")
_PARQUET_BATCH = 64  # rows decoded at a time


def scan_parquet(
    uri: str,
    *,
    perceptual: bool = False,
    passed: Counter[str] | None = None,
    allowed: Sequence[str] = (),
) -> Iterator[SourceRow]:
    """Yield a table's images: bytes in a column, or paths that a column names.

    A path is followed below the table's own folder, and where it is allowed: a table of a
    stranger's could name any file of this machine, or address of its network, and a dataset would
    publish it.

    Args:
        uri: of the table.
        perceptual: decode each image for its perceptual hash as well.
        passed: counts the columns that are not used, by name.
        allowed: stored URIs of folders below which paths are followed, too.

    Raises:
        SourceError: no column is known to hold images.
    """
    with storage.open_binary(uri) as file, pq.ParquetFile(file) as table:
        column = _image_column(uri, table.schema_arrow)
        if passed is not None:
            passed.update(f"column {name}" for name in _unused(table.schema_arrow, column))
        at = 0
        for batch in table.iter_batches(_PARQUET_BATCH):
            for values in batch.to_pylist():
                image = values.pop(column)
                yield _parquet_row(uri, at, image, values, perceptual, allowed)
                at += 1


def holds_images(uri: str) -> bool:
    """Say whether a table has a column of images, or of their paths."""
    with storage.open_binary(uri) as file, pq.ParquetFile(file) as table:
        return _find_column(table.schema_arrow) is not None


def _find_column(schema: pa.Schema) -> str | None:
    folded = {name.casefold(): name for name in reversed(schema.names)}
    for name in (*BYTES_COLUMNS, *PATH_COLUMNS):
        if name in schema.names:
            return name
    return next((folded[name] for name in (*BYTES_COLUMNS, *PATH_COLUMNS) if name in folded), None)


def _image_column(uri: str, schema: pa.Schema) -> str:
    if (found := _find_column(schema)) is not None:
        return found
    raise SourceError(
        f"{uri} has columns {schema.names}; expected image bytes in one of {BYTES_COLUMNS} "
        f"or a path in one of {PATH_COLUMNS}"
    )


def _parquet_row(
    uri: str,
    at: int,
    image: Any,
    values: dict[str, Any],
    perceptual: bool,
    allowed: Sequence[str],
) -> SourceRow:
    if isinstance(image, dict):  # Hugging Face datasets: {"bytes": ..., "path": ...}
        image = image.get("bytes") or image.get("path")
    target = uri
    try:
        if isinstance(image, str) and image:
            target = _target(uri, image, allowed)
            with storage.open_binary(target) as file:
                row = measure(SourceRow(uri=target), file, perceptual=perceptual)
        elif isinstance(image, bytes):
            row = SourceRow(uri=uri, row=at, length=len(image))
            row = measure(row, io.BytesIO(image), perceptual=perceptual)
        else:
            row = rejected_row(SourceRow(uri=uri, row=at), _no_image(image))
    except ImageError as error:
        row = rejected_row(SourceRow(uri=uri, row=at), error)
    except Exception as error:  # a path column can hold anything
        blame(error, [target])
        row = lost(SourceRow(uri=uri, row=at), error)
    return with_said(row, {"json": read_fields(values)})


def _no_image(value: Any) -> ImageError:
    if value is None or value == "":
        return ImageError("empty_file", "no image", value=0)
    kind = type(value).__name__
    return ImageError("not_an_image", f"expected bytes or a path in each row, found a {kind}")


def _unused(schema: pa.Schema, image: str) -> Iterator[str]:
    for column in schema:
        is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        known = column.name in (image, "popularity") or is_caption_name(column.name)
        if not known and not is_number and not pa.types.is_decimal(column.type):
            yield printable(column.name)


def _target(uri: str, name: str, allowed: Sequence[str]) -> str:
    """Return the stored URI of what a row names.

    Raises:
        ImageError: rule ``outside_source``: it lies neither below the table's folder nor where it
            is allowed.
    """
    if (shown := without_secrets(name)) is not None:
        raise ImageError(
            "outside_source",
            f"{printable(shown)} comes with a password or a signature, which would be kept",
        )
    folder, table = storage.absolute(uri).rpartition("/")[0], storage.local_path(uri)
    if "://" in name or os.path.isabs(name):
        target = storage.absolute(name)
    elif table is None:
        target = storage.join(folder, name)
    else:
        target = storage.file_uri(table.parent / name)
    inside = any(target.startswith(f"{one.rstrip('/')}/") for one in (folder, *allowed))
    if not inside or ".." in target.split("/") or "::" in target:
        raise ImageError(
            "outside_source",
            f"{printable(name)} does not lie below {folder}; to follow it, allow a folder above "
            "it: --allow-paths FOLDER",
        )
    return target


class ParquetRows:
    """Images of rows that are wanted soon: a row group is read once for all of them.

    Safe in any thread. What was read is held until it is asked for, so at most the wanted images'
    bytes; a row that is asked for again, or was not named, is read alone.
    """

    def __init__(self, wanted: Iterable[tuple[str, int]]) -> None:
        """Name the (URI, row) pairs that will be asked for."""
        self._wanted: dict[str, set[int]] = {}
        for uri, at in wanted:
            self._wanted.setdefault(uri, set()).add(at)
        self._lock = Lock()
        self._ends: dict[str, list[int]] = {}
        self._reading: dict[tuple[str, int], Lock] = {}
        self._done: set[tuple[str, int]] = set()
        self._held: dict[tuple[str, int], bytes] = {}

    def read(self, uri: str, at: int) -> bytes:
        """Return the image bytes of a row; raises SourceError where there is none."""
        if at not in self._wanted.get(uri, ()):
            return read_parquet_row(uri, at)
        with self._lock:
            ends = self._ends[uri] = self._ends.get(uri) or _row_group_ends(uri)
            group = bisect_right(ends, at)
            reading = self._reading.setdefault((uri, group), Lock())
        with reading:
            if (uri, group) not in self._done:
                self._read_group(uri, group, ends)
                self._done.add((uri, group))
            data = self._held.pop((uri, at), None)
        return read_parquet_row(uri, at) if data is None else data

    def _read_group(self, uri: str, group: int, ends: Sequence[int]) -> None:
        if group == len(ends):
            return  # `read_parquet_row` says so
        begin = ends[group - 1] if group else 0
        here = sorted(at for at in self._wanted[uri] if begin <= at < ends[group])
        found = _read_images(uri, group, [at - begin for at in here])
        both = zip(here, found, strict=True)
        self._held.update({(uri, at): data for at, data in both if data is not None})


def read_parquet_row(uri: str, at: int) -> bytes:
    """Return the image bytes of row `at`; reads the whole row group that holds it."""
    ends = _row_group_ends(uri)
    group = bisect_right(ends, at)
    if group == len(ends):
        raise SourceError(f"{uri} has fewer rows than when it was scanned")
    (data,) = _read_images(uri, group, [at - (ends[group - 1] if group else 0)])
    if data is None:
        raise SourceError(f"{uri} has no image in row {at} any more")
    return data


def _row_group_ends(uri: str) -> list[int]:
    """Return one past the last row of each row group."""
    with storage.open_binary(uri) as file, pq.ParquetFile(file) as table:
        groups = range(table.num_row_groups)
        return list(accumulate(table.metadata.row_group(group).num_rows for group in groups))


def _read_images(uri: str, group: int, places: Sequence[int]) -> list[bytes | None]:
    """Return the images at these places of a row group; None where there is none."""
    with storage.open_binary(uri) as file, pq.ParquetFile(file) as table:
        column = _image_column(uri, table.schema_arrow)
        values = table.read_row_group(group, [column])[column].take(pa.array(places, pa.int64()))
    found = (one["bytes"] if isinstance(one, dict) else one for one in values.to_pylist())
    return [None if one is None else bytes(one) for one in found]
