"""Where raw images come from: folders, WebDataset tars and parquet files, to one row an image.

Listing is cheap and sequential; `scan_part` does the reading, one part (a file, a tar, a parquet)
at a time, so that a caller can spread parts over threads or machines. Pixels are decoded only where
perceptual hashes are asked for, and nothing that a file can hold raises: an unusable image is a row
with its reason.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Any, Literal

import fsspec

from catalog import storage
from catalog.containers import (
    IMAGE_SUFFIXES,
    SIDECAR_LIMIT,
    read_parquet_row,
    scan_parquet,
    scan_tar,
)
from catalog.errors import SourceError, StorageUnavailable
from catalog.labels import Labels
from catalog.source_rows import SourceRow, lost, measure, printable, with_sidecars

Kind = Literal["file", "tar", "parquet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a source that is scanned in one go.

    Attributes:
        uri: of the file, in the stored form.
        kind: an image file, or a container of many images.
        sidecars: URIs of the .txt and .json beside an image file, by suffix.
        label: URI of an image file's ground truth.
    """

    uri: str
    kind: Kind
    sidecars: dict[str, str] = field(default_factory=dict)
    label: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a source holds: the parts to scan, sorted, and a count of what was passed over."""

    parts: list[Part]
    ignored: dict[str, int]


def list_parts(
    uris: Iterable[str],
    *,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    labels: Labels | None = None,
) -> Listing:
    """List folders (recursively), single images, ``.tar`` and ``.parquet`` files.

    Args:
        uris: local paths or fsspec URIs.
        include: glob patterns over the path below the given folder; where given, one must match.
        exclude: glob patterns of which none may match.
        labels: where the ground truth of image files lies; a label is listed as no image.

    Raises:
        SourceError: a URI does not exist.
    """
    parts: dict[str, Part] = {}
    ignored: Counter[str] = Counter()
    wanted, unwanted = tuple(include), tuple(exclude)
    walks = [dict(_walk(uri)) for uri in uris]
    beside = set().union(*walks)
    known = _find_labels(labels, walks)
    taken = set(known.values())
    for names in walks:
        for found, relative in names.items():
            suffix = PurePosixPath(relative).suffix.lower().removeprefix(".")
            if found in taken:
                ignored["labels"] += 1
            elif suffix not in IMAGE_SUFFIXES | {"tar", "parquet"}:
                ignored[printable(f".{suffix}") if suffix else "no suffix"] += 1
            elif not _chosen(relative, wanted, unwanted):
                ignored["excluded"] += 1
            else:
                parts[found] = _part(found, suffix, beside, known.get(found))
    return Listing(parts=[parts[uri] for uri in sorted(parts)], ignored=dict(ignored))


def scan_part(part: Part, *, perceptual: bool = False) -> list[SourceRow]:
    """Read one part: hash and header of every image in it, with what lies beside it.

    Args:
        part: a file or a container of images.
        perceptual: decode each image for its perceptual hash as well.
    """
    rows: list[SourceRow] = []
    try:
        if part.kind == "file":
            rows.append(_scan_file(part, perceptual))
        else:
            read = scan_tar if part.kind == "tar" else scan_parquet
            rows.extend(read(part.uri, perceptual=perceptual))
    except StorageUnavailable:
        raise  # says nothing of the file
    except Exception as error:  # one file must not end the scan; its row names the class
        rows.append(lost(SourceRow(uri=part.uri), error))
    return rows


def read_image(row: dict[str, Any]) -> bytes:
    """Return the encoded bytes of the image that a source or plan row names."""
    if row["row"] is not None:
        return read_parquet_row(row["uri"], row["row"])
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


def _find_labels(labels: Labels | None, walks: list[dict[str, str]]) -> dict[str, str]:
    """Return the label of each file that has one, by its path without the suffix."""
    if labels is None:
        return {}
    roots = walks if labels.root is None else [dict(_walk(labels.root))]
    stems = {
        relative.removesuffix(labels.suffix): found
        for names in roots
        for found, relative in names.items()
        if relative.endswith(labels.suffix)
    }
    pairs = ((found, _stem(relative)) for names in walks for found, relative in names.items())
    return {found: stems[stem] for found, stem in pairs if stems.get(stem, found) != found}


def _stem(relative: str) -> str:
    return relative[: relative.rindex(".")] if "." in PurePosixPath(relative).name else relative


def _part(uri: str, suffix: str, names: set[str], label: str | None) -> Part:
    if suffix == "tar":
        return Part(uri=uri, kind="tar")
    if suffix == "parquet":
        return Part(uri=uri, kind="parquet")
    stem = uri[: uri.rindex(".")]
    beside = {end: f"{stem}.{end}" for end in ("txt", "json") if f"{stem}.{end}" in names}
    return Part(uri=uri, kind="file", sidecars=beside, label=label)


def _scan_file(part: Part, perceptual: bool) -> SourceRow:
    row = SourceRow(uri=part.uri)
    try:
        texts = {
            end: storage.read_bytes(uri, 0, SIDECAR_LIMIT) for end, uri in part.sidecars.items()
        }
        with storage.open_binary(part.uri) as file:
            row = with_sidecars(measure(row, file, perceptual=perceptual), texts)
        if part.label is not None:
            row = replace(row, label=part.label, label_sha256=storage.sha256_file(part.label))
        return row
    except OSError as error:
        return lost(row, error)
