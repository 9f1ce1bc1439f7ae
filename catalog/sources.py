"""Where raw images come from: folders, WebDataset tars and parquet files, to one row an image.

Listing is cheap and sequential; `scan_part` does the reading, one part (a file, a tar, a parquet)
at a time, so that a caller can spread parts over threads or machines. Pixels are never decoded
here, and nothing that a file can hold raises: an unusable image is a row with its reason.
"""

import io
import json
import math
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import IO, Any, Literal

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from catalog import storage
from catalog.errors import ImageError, SourceError
from catalog.images import Header, read_header
from catalog.sample import OK, failed, rejected

IMAGE_SUFFIXES = frozenset(
    ("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff", "avif", "jp2")
)
CAPTION_FIELDS = ("caption", "text", "TEXT", "prompt")
BYTES_COLUMNS = ("image", "jpg", "png", "bytes", "image_bytes")
PATH_COLUMNS = ("path", "image_path", "file_name", "uri")

_SIDECAR_LIMIT = 1 << 16  # bytes of a caption file that are read
_PARQUET_BATCH = 64  # rows decoded at a time

Kind = Literal["file", "tar", "parquet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a source that is scanned in one go.

    Attributes:
        uri: of the file, in the stored form.
        kind: an image file, or a container of many images.
        sidecars: URIs of the .txt and .json beside an image file, by suffix.
    """

    uri: str
    kind: Kind
    sidecars: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow:
    """One image as found; the fields are the columns of `catalog.tables.SOURCE`."""

    uri: str
    status: str = OK
    rank: int | None = None
    offset: int | None = None
    row: int | None = None
    length: int | None = None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    caption: str | None = None
    popularity: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    value: float | None = None
    threshold: float | None = None
    detail: str | None = None

    @property
    def place(self) -> tuple[str, int]:
        """The stable order of a source: by URI, then by place in the container."""
        return self.uri, next((at for at in (self.offset, self.row) if at is not None), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a source holds: the parts to scan, sorted, and a count of what was passed over."""

    parts: list[Part]
    ignored: dict[str, int]


def list_parts(
    uris: Iterable[str], *, include: Iterable[str] = (), exclude: Iterable[str] = ()
) -> Listing:
    """List folders (recursively), single images, ``.tar`` and ``.parquet`` files.

    Args:
        uris: local paths or fsspec URIs.
        include: glob patterns over the path below the given folder; where given, one must match.
        exclude: glob patterns of which none may match.

    Raises:
        SourceError: a URI does not exist.
    """
    parts: dict[str, Part] = {}
    ignored: Counter[str] = Counter()
    wanted, unwanted = tuple(include), tuple(exclude)
    walks = [dict(_walk(uri)) for uri in uris]
    beside = set().union(*walks)
    for names in walks:
        for found, relative in names.items():
            suffix = PurePosixPath(relative).suffix.lower().removeprefix(".")
            if suffix not in IMAGE_SUFFIXES | {"tar", "parquet"}:
                ignored[_printable(f".{suffix}") if suffix else "no suffix"] += 1
            elif not _chosen(relative, wanted, unwanted):
                ignored["excluded"] += 1
            else:
                parts[found] = _part(found, suffix, beside)
    return Listing(parts=[parts[uri] for uri in sorted(parts)], ignored=dict(ignored))


def scan_part(part: Part) -> list[SourceRow]:
    """Read one part: hash and header of every image in it, with what lies beside it."""
    scan = {"file": _scan_file, "tar": _scan_tar, "parquet": _scan_parquet}[part.kind]
    rows: list[SourceRow] = []
    try:
        rows.extend(scan(part))
    except Exception as error:  # one file must not end the scan; its row names the class
        rows.append(_lost(SourceRow(uri=part.uri), error))
    return rows


def read_image(row: dict[str, Any]) -> bytes:
    """Return the encoded bytes of the image that a source or plan row names."""
    if row["row"] is not None:
        return _read_parquet_row(row["uri"], row["row"])
    if row["offset"] is not None:
        return storage.read_bytes(row["uri"], row["offset"], row["length"])
    return storage.read_bytes(row["uri"])


def _walk(uri: str) -> Iterator[tuple[str, str]]:
    """Yield (stored URI, path below `uri`) of every file below `uri`, or of `uri` itself."""
    root = storage.local_path(uri)
    if root is None:
        yield from _walk_remote(uri)
    elif root.is_file():
        yield storage.file_uri(root), root.name
    elif root.is_dir():
        for folder, _, names in os.walk(root):
            for name in names:
                path = os.path.join(folder, name)
                yield storage.file_uri(path), os.path.relpath(path, root)
    else:
        raise SourceError(f"no images at {uri}: the path does not exist")


def _walk_remote(uri: str) -> Iterator[tuple[str, str]]:
    fs, root = fsspec.core.url_to_fs(uri)
    found = [fs.unstrip_protocol(name) for name in fs.find(root)]
    if not found:
        raise SourceError(f"no images at {uri}: nothing is stored below it")
    base = fs.unstrip_protocol(root).rstrip("/") + "/"
    for name in found:
        yield name, name.removeprefix(base) if name.startswith(base) else PurePosixPath(name).name


def _chosen(relative: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    if any(fnmatch(relative, pattern) for pattern in exclude):
        return False
    return not include or any(fnmatch(relative, pattern) for pattern in include)


def _part(uri: str, suffix: str, names: set[str]) -> Part:
    if suffix == "tar":
        return Part(uri=uri, kind="tar")
    if suffix == "parquet":
        return Part(uri=uri, kind="parquet")
    stem = uri[: uri.rindex(".")]
    beside = {end: f"{stem}.{end}" for end in ("txt", "json") if f"{stem}.{end}" in names}
    return Part(uri=uri, kind="file", sidecars=beside)


def _scan_file(part: Part) -> Iterator[SourceRow]:
    row = SourceRow(uri=part.uri)
    try:
        texts = {
            end: storage.read_bytes(uri, 0, _SIDECAR_LIMIT) for end, uri in part.sidecars.items()
        }
        with storage.open_binary(part.uri) as file:
            yield _with_sidecars(_measure(row, file), texts)
    except OSError as error:
        yield _lost(row, error)


def _scan_tar(part: Part) -> Iterator[SourceRow]:
    """Yield a WebDataset tar's images; nothing is extracted, so a member's name is only a name."""
    images: dict[str, list[SourceRow]] = {}
    texts: dict[str, dict[str, bytes]] = {}
    broken: SourceRow | None = None
    with storage.open_binary(part.uri) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    _take_member(part.uri, tar, member, images, texts)
                _check_end(file, tar.offset)
        except tarfile.TarError as error:
            broken = replace(_lost(SourceRow(uri=part.uri), error), status="failed:TarError")
    for key, rows in images.items():
        for row in rows:
            yield _with_sidecars(row, texts.get(key, {}))
    if broken is not None:
        yield broken


def _take_member(
    uri: str,
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    images: dict[str, list[SourceRow]],
    texts: dict[str, dict[str, bytes]],
) -> None:
    folder, _, name = member.name.rpartition("/")
    stem, _, end = name.partition(".")
    content = tar.extractfile(member) if member.isfile() else None
    if content is None:
        return
    key, end = f"{folder}/{stem}", end.lower()
    if end in IMAGE_SUFFIXES:
        row = SourceRow(uri=uri, offset=member.offset_data, length=member.size)
        images.setdefault(key, []).append(_measure(row, content))
    elif end in ("txt", "json"):
        texts.setdefault(key, {})[end] = content.read(_SIDECAR_LIMIT)


def _check_end(file: IO[bytes], offset: int) -> None:
    """Raise TarError unless a tar ends at `offset`; tarfile passes off a broken header as the end.

    The end is a record of zeros, or that of the file, as tars that were put together lack the mark.
    """
    file.seek(offset)
    if any(file.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError(f"no tar header at byte {offset}; members behind it are lost")


def _scan_parquet(part: Part) -> Iterator[SourceRow]:
    with storage.open_binary(part.uri) as file, pq.ParquetFile(file) as table:
        column = _image_column(part.uri, table.schema_arrow)
        at = 0
        for batch in table.iter_batches(_PARQUET_BATCH):
            for values in batch.to_pylist():
                yield _parquet_row(part.uri, at, values.pop(column), values)
                at += 1


def _image_column(uri: str, schema: pa.Schema) -> str:
    for name in (*BYTES_COLUMNS, *PATH_COLUMNS):
        if name in schema.names:
            return name
    raise SourceError(
        f"{uri} has columns {schema.names}; expected image bytes in one of {BYTES_COLUMNS} "
        f"or a path in one of {PATH_COLUMNS}"
    )


def _parquet_row(uri: str, at: int, image: Any, values: dict[str, Any]) -> SourceRow:
    if isinstance(image, dict):  # Hugging Face datasets: {"bytes": ..., "path": ...}
        image = image.get("bytes") or image.get("path")
    try:
        if isinstance(image, str) and image:
            target = _beside(uri, image)
            with storage.open_binary(target) as file:
                row = _measure(SourceRow(uri=target), file)
        elif isinstance(image, bytes):
            row = _measure(SourceRow(uri=uri, row=at, length=len(image)), io.BytesIO(image))
        else:
            row = _judged(SourceRow(uri=uri, row=at), ImageError("empty_file", "no image", value=0))
    except Exception as error:  # a path column can hold anything
        row = _lost(SourceRow(uri=uri, row=at), error)
    return _with_fields(row, values)


def _beside(uri: str, name: str) -> str:
    if "://" in name or os.path.isabs(name):
        return storage.absolute(name)
    folder = storage.local_path(uri)
    if folder is None:
        return storage.join(uri.rpartition("/")[0], name)
    return storage.file_uri(folder.parent / name)


def _read_parquet_row(uri: str, at: int) -> bytes:
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


def _measure(row: SourceRow, file: IO[bytes]) -> SourceRow:
    """Fill in hash, length and header; a broken picture becomes a rejected row with its hash."""
    sha256 = storage.sha256_stream(file)
    row = replace(row, sha256=sha256, length=file.tell())
    file.seek(0)
    try:
        header: Header = read_header(file)
    except ImageError as error:
        return _judged(row, error)
    return replace(row, width=header.width, height=header.height, format=header.format)


def _judged(row: SourceRow, error: ImageError) -> SourceRow:
    judgement = rejected(error.rule, value=error.value, detail=str(error))
    return replace(row, status=judgement.status, value=judgement.value, detail=judgement.detail)


def _lost(row: SourceRow, error: Exception) -> SourceRow:
    judgement = failed(error)
    return replace(
        row, status=judgement.status, detail=judgement.detail and _printable(judgement.detail)
    )


def _with_sidecars(row: SourceRow, texts: dict[str, bytes]) -> SourceRow:
    fields: dict[str, Any] = {}
    if "json" in texts:
        try:
            found = json.loads(texts["json"])
            fields = found if isinstance(found, dict) else {}
        except (ValueError, RecursionError) as error:
            row = replace(row, detail=row.detail or f"sidecar .json is ignored: {error}"[:200])
    row = _with_fields(row, fields)
    if "txt" in texts:
        row = replace(row, caption=texts["txt"].decode("utf-8-sig", errors="replace"))
    return row


def _with_fields(row: SourceRow, fields: dict[str, Any]) -> SourceRow:
    """Take caption, popularity and all other finite numbers from a sidecar or from columns."""
    captions = (fields[name] for name in CAPTION_FIELDS if isinstance(fields.get(name), str))
    scores = {str(name): float(value) for name, value in fields.items() if _is_score(value)}
    return replace(
        row,
        caption=next((_printable(text) for text in captions), None),
        popularity=scores.pop("popularity", None),
        scores={_printable(name): scores[name] for name in sorted(scores)},
    )


def _is_score(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _printable(text: str) -> str:
    """Replace what UTF-8 cannot hold: lone surrogates from JSON escapes or raw file names."""
    return text.encode("utf-8", errors="replace").decode("utf-8")
