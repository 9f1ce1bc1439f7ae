"""Files that hold many images: WebDataset tars and parquet tables."""

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from catalog import storage
from catalog.errors import ImageError, SourceError
from catalog.source.presence import blame
from catalog.source.rows import SourceRow, lost, measure, rejected_row, with_fields, with_sidecars

IMAGE_SUFFIXES = frozenset(
    ("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff", "avif", "jp2")
)
BYTES_COLUMNS = ("image", "jpg", "png", "bytes", "image_bytes")
PATH_COLUMNS = ("path", "image_path", "file_name", "uri")
SIDECAR_LIMIT = 1 << 16
"""Bytes of a caption file that are read."""

_PARQUET_BATCH = 64  # rows decoded at a time


def scan_tar(uri: str, *, perceptual: bool = False) -> Iterator[SourceRow]:
    """Yield a WebDataset tar's images; nothing is extracted, so a member's name is only a name."""
    images: dict[str, list[SourceRow]] = {}
    texts: dict[str, dict[str, bytes]] = {}
    broken: SourceRow | None = None
    with storage.open_binary(uri) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    _take_member(uri, tar, member, images, texts, perceptual)
                _check_end(file, tar.offset)
        except tarfile.TarError as error:
            broken = replace(lost(SourceRow(uri=uri), error), status="failed:TarError")
    for key, rows in images.items():
        for row in rows:
            yield with_sidecars(row, texts.get(key, {}))
    if broken is not None:
        yield broken


def _take_member(
    uri: str,
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    images: dict[str, list[SourceRow]],
    texts: dict[str, dict[str, bytes]],
    perceptual: bool,
) -> None:
    folder, _, name = member.name.rpartition("/")
    stem, _, end = name.partition(".")
    content = tar.extractfile(member) if member.isfile() else None
    if content is None:
        return
    key, end = f"{folder}/{stem}", end.lower()
    if end in IMAGE_SUFFIXES:
        row = SourceRow(uri=uri, offset=member.offset_data, length=member.size)
        images.setdefault(key, []).append(measure(row, content, perceptual=perceptual))
    elif end in ("txt", "json"):
        texts.setdefault(key, {})[end] = content.read(SIDECAR_LIMIT)


def _check_end(file: IO[bytes], offset: int) -> None:
    """Raise TarError unless a tar ends at `offset`; tarfile passes off a broken header as the end.

    The end is a record of zeros, or that of the file, as tars that were put together lack the mark.
    """
    file.seek(offset)
    if any(file.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError(f"no tar header at byte {offset}; members behind it are lost")


def scan_parquet(uri: str, *, perceptual: bool = False) -> Iterator[SourceRow]:
    """Yield a table's images: bytes in a column, or paths that a column names.

    Raises:
        SourceError: no column is known to hold images.
    """
    with storage.open_binary(uri) as file, pq.ParquetFile(file) as table:
        column = _image_column(uri, table.schema_arrow)
        at = 0
        for batch in table.iter_batches(_PARQUET_BATCH):
            for values in batch.to_pylist():
                yield _parquet_row(uri, at, values.pop(column), values, perceptual)
                at += 1


def _image_column(uri: str, schema: pa.Schema) -> str:
    for name in (*BYTES_COLUMNS, *PATH_COLUMNS):
        if name in schema.names:
            return name
    raise SourceError(
        f"{uri} has columns {schema.names}; expected image bytes in one of {BYTES_COLUMNS} "
        f"or a path in one of {PATH_COLUMNS}"
    )


def _parquet_row(
    uri: str, at: int, image: Any, values: dict[str, Any], perceptual: bool
) -> SourceRow:
    if isinstance(image, dict):  # Hugging Face datasets: {"bytes": ..., "path": ...}
        image = image.get("bytes") or image.get("path")
    target = uri
    try:
        if isinstance(image, str) and image:
            target = _beside(uri, image)
            with storage.open_binary(target) as file:
                row = measure(SourceRow(uri=target), file, perceptual=perceptual)
        elif isinstance(image, bytes):
            row = SourceRow(uri=uri, row=at, length=len(image))
            row = measure(row, io.BytesIO(image), perceptual=perceptual)
        else:
            row, empty = SourceRow(uri=uri, row=at), ImageError("empty_file", "no image", value=0)
            row = rejected_row(row, empty)
    except Exception as error:  # a path column can hold anything
        blame(error, [target])
        row = lost(SourceRow(uri=uri, row=at), error)
    return with_fields(row, values)


def _beside(uri: str, name: str) -> str:
    if "://" in name or os.path.isabs(name):
        return storage.absolute(name)
    folder = storage.local_path(uri)
    if folder is None:
        return storage.join(uri.rpartition("/")[0], name)
    return storage.file_uri(folder.parent / name)


def read_parquet_row(uri: str, at: int) -> bytes:
    """Return the image bytes of row `at`; reads the whole row group that holds it."""
    with storage.open_binary(uri) as file, pq.ParquetFile(file) as table:
        column = _image_column(uri, table.schema_arrow)
        for group in range(table.num_row_groups):
            rows = table.metadata.row_group(group).num_rows
            if at < rows:
                value = table.read_row_group(group, [column])[column][at].as_py()
                found = value["bytes"] if isinstance(value, dict) else value
                return bytes(found)
            at -= rows
    raise SourceError(f"{uri} has fewer rows than when it was scanned")
