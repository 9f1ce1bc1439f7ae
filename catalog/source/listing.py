"""What a source holds, by name alone: millions of files in a table, not in objects.

A million files are listed in about 300 MB, and their parts made from the table as they are scanned.
"""

import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from urllib.parse import quote_from_bytes

import fsspec
import pyarrow as pa

from catalog import storage
from catalog.errors import SourceError
from catalog.source.containers import IMAGE_SUFFIXES
from catalog.source.labels import Labels
from catalog.source.parts import Part
from catalog.source.presence import check_gone
from catalog.source.rows import printable

_SIDECARS = ("txt", "json")
_CONTAINERS = ("tar", "parquet")
_WANTED = IMAGE_SUFFIXES.union(_CONTAINERS)

PARTS = pa.schema(
    [
        pa.field("uri", pa.string()),
        pa.field("kind", pa.string()),  # file | tar | parquet
        *(pa.field(suffix, pa.bool_()) for suffix in _SIDECARS),  # whether it lies beside
        pa.field("label", pa.string()),  # URI of the ground truth
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a source holds: the parts to scan and a count of what was passed over.

    Attributes:
        table: `PARTS`, sorted by URI.
        ignored: files that are no part, by suffix or reason.
    """

    table: pa.Table
    ignored: dict[str, int]

    @property
    def parts(self) -> list[Part]:
        """All parts; for large sources rather `to_parts` of a slice of the table."""
        return to_parts(self.table)


def to_parts(table: pa.Table) -> list[Part]:
    """Return the parts that rows of `PARTS` stand for."""
    return [
        Part(
            uri=row["uri"],
            kind=row["kind"],
            sidecars={end: f"{_stem(row['uri'])}.{end}" for end in _SIDECARS if row[end]},
            label=row["label"],
        )
        for row in table.to_pylist()
    ]


def list_parts(
    uris: Iterable[str],
    *,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    labels: Labels | None = None,
) -> Listing:
    """List folders (recursively), single images, ``.tar`` and ``.parquet`` files.

    Links to folders are followed; a folder that was reached before is counted and not read again.

    Args:
        uris: local paths or fsspec URIs.
        include: glob patterns over the path below the given folder; where given, one must match.
        exclude: glob patterns of which none may match.
        labels: where the ground truth of image files lies; a label is listed as no image.

    Raises:
        SourceError: a URI does not exist, or a folder cannot be listed that `exclude` does not
            cover.
        PlaceError: a link leads to a place that is not there.
    """
    roots, wanted, unwanted = list(uris), tuple(include), tuple(exclude)
    known = _find_labels(labels, roots, unwanted)
    taken = set(known.values())
    ignored: Counter[str] = Counter()
    parts: set[str] = set()
    beside: set[str] = set()
    for found, relative in (one for uri in roots for one in _walk(uri, unwanted, ignored)):
        suffix = _suffix(relative)
        if suffix in _SIDECARS:
            beside.add(found)
        if found in taken:
            ignored["labels"] += 1
        elif suffix not in _WANTED:
            ignored[printable(f".{suffix}") if suffix else "no suffix"] += 1
        elif not _chosen(relative, wanted, unwanted):
            ignored["excluded"] += 1
        else:
            parts.add(found)
    return Listing(table=_table(sorted(parts), beside, known), ignored=dict(ignored))


def _table(uris: list[str], beside: set[str], known: dict[str, str]) -> pa.Table:
    kinds = [suffix if (suffix := _suffix(uri)) in _CONTAINERS else "file" for uri in uris]
    columns = {
        "uri": pa.array(uris, pa.string()),
        "kind": pa.array(kinds, pa.string()),
        "label": pa.array((known.get(uri) for uri in uris), pa.string(), size=len(uris)),
    }
    pairs = zip(kinds, uris, strict=True)
    stems = [_stem(uri) if kind == "file" else "" for kind, uri in pairs]
    for end in _SIDECARS:
        columns[end] = pa.array([f"{stem}.{end}" in beside for stem in stems], pa.bool_())
    return pa.table(columns).select(PARTS.names).cast(PARTS)


def _walk(uri: str, unwanted: tuple[str, ...], ignored: Counter[str]) -> Iterator[tuple[str, str]]:
    """Yield (stored URI, path below `uri`) of every file below `uri`, or of `uri` itself."""
    root = storage.local_path(uri)
    if root is None:
        yield from _walk_remote(uri)
    elif root.is_file():
        yield storage.file_uri(root), root.name
    elif root.is_dir():
        yield from _walk_local(root, unwanted, ignored)
    else:
        raise SourceError(f"no images at {uri}: the path does not exist")


def _walk_local(
    root: Path, unwanted: tuple[str, ...], ignored: Counter[str]
) -> Iterator[tuple[str, str]]:
    def refuse(error: OSError) -> None:
        below = os.path.relpath(error.filename, root)
        if not _excluded(f"{below}/", unwanted):
            raise SourceError(
                f"the folder {error.filename} cannot be listed: {error.strerror}. Let it be read, "
                f"or leave it out with --exclude '{below}/*'"
            ) from error
        ignored["folders excluded"] += 1

    seen: set[tuple[int, int]] = set()
    waiting = deque([os.fspath(root)])
    while waiting:  # links come after all that is reached without one, so that they hide nothing
        for folder, below, names in os.walk(waiting.popleft(), onerror=refuse):
            found = os.stat(folder)
            if (found.st_dev, found.st_ino) in seen:
                ignored["folders seen already"] += 1
                below.clear()
                continue
            seen.add((found.st_dev, found.st_ino))
            links = [path for name in sorted(below) if os.path.islink(path := f"{folder}/{name}")]
            above = [link for link in links if _holds(link, root)]
            ignored.update({"links to folders above": len(above)} if above else {})
            waiting += (link for link in links if link not in above)
            yield from _files(folder, root, names)


def _holds(folder: str, root: Path) -> bool:
    """Say whether a folder holds `root`, somewhere below it."""
    return os.path.realpath(root).startswith(os.path.join(os.path.realpath(folder), ""))


def _files(folder: str, root: Path, names: list[str]) -> Iterator[tuple[str, str]]:
    # Once a folder: quoting and joining whole paths would take most of a listing's time.
    before = storage.file_uri(os.path.join(folder, "_"))[:-1]
    below = os.path.relpath(os.path.join(folder, "_"), root)[:-1]
    for name in names:
        uri = before + quote_from_bytes(os.fsencode(name))
        if not _suffix(name) and not os.path.exists(os.path.join(folder, name)):
            check_gone([uri])  # a link that leads nowhere, perhaps to a folder of images
        yield uri, below + name


def _walk_remote(uri: str) -> Iterator[tuple[str, str]]:
    fs, root = fsspec.core.url_to_fs(uri)
    found = [fs.unstrip_protocol(name) for name in fs.find(root)]
    if not found:
        raise SourceError(f"no images at {uri}: nothing is stored below it")
    base = fs.unstrip_protocol(root).rstrip("/") + "/"
    for name in found:
        yield name, name.removeprefix(base) if name.startswith(base) else PurePosixPath(name).name


def _chosen(relative: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    if _excluded(relative, exclude):
        return False
    return not include or any(fnmatch(relative, pattern) for pattern in include)


def _excluded(relative: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(relative, pattern) for pattern in patterns)


def _find_labels(
    labels: Labels | None, roots: list[str], unwanted: tuple[str, ...]
) -> dict[str, str]:
    """Return the label of each file that has one, by its URI."""
    if labels is None:
        return {}
    folders = roots if labels.root is None else [labels.root]
    stems = {
        relative.removesuffix(labels.suffix): found
        for folder in folders
        for found, relative in _walk(folder, unwanted, Counter())
        if relative.endswith(labels.suffix)
    }
    files = (one for folder in roots for one in _walk(folder, unwanted, Counter()))
    pairs = ((found, _stem(relative)) for found, relative in files)
    return {found: stems[stem] for found, stem in pairs if stems.get(stem, found) != found}


def _suffix(name: str) -> str:
    stem, _, suffix = name.rpartition("/")[2].rpartition(".")
    return suffix.lower() if stem else ""  # of .png there is none: it is hidden


def _stem(name: str) -> str:
    return name[: name.rindex(".")] if "." in name.rpartition("/")[2] else name
