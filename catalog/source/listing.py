"""What a source holds, by name alone: millions of files in a table, not in objects.

A million files are listed in about 300 MB, and their parts made from the table as they are scanned.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch

import pyarrow as pa

from catalog.sample import sha256_hex
from catalog.source import folder_tables
from catalog.source.claims import Claims
from catalog.source.folder_tables import read_folder_table
from catalog.source.folders import Folder, folders_of
from catalog.source.labels import Labels
from catalog.source.names import IMAGE_SUFFIXES, Names, stem_of, suffix_of
from catalog.source.parts import Kind, Part
from catalog.source.texts import printable

_SIDECARS = {"txt": ("txt", "caption"), "json": ("json",)}  # of kohya's tools is .caption
_CONTAINERS = ("tar", "parquet")
_WANTED = IMAGE_SUFFIXES.union(_CONTAINERS)

PARTS = pa.schema(
    [
        pa.field("uri", pa.string()),
        pa.field("kind", pa.string()),  # `catalog.source.parts.Kind`
        *(
            pa.field(kind, pa.string()) for kind in _SIDECARS
        ),  # the end of the URI of what is beside
        pa.field("row", pa.string()),  # what a table of a folder says of it, JSON
        pa.field("label", pa.string()),  # URI of the ground truth
        pa.field("unlabelled", pa.string()),  # why there is none, where it was looked for
        pa.field("stamp", pa.string()),  # another where one of its files changed; null if unknown
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a source holds: the parts to scan and a count of what was passed over.

    Attributes:
        table: `PARTS`, sorted by URI.
        ignored: files that are no part and lie beside none, by suffix or reason.
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
            sidecars={
                kind: f"{row['uri'].rpartition('/')[0]}/{row[kind]}"
                for kind in _SIDECARS
                if row[kind] is not None
            },
            row=row["row"],
            label=row["label"],
            unlabelled=row["unlabelled"],
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

    Captions and numbers are those of an image's folder and stem (`catalog.source.names`), whether
    the folder was given or the image alone.

    Args:
        uris: local paths or fsspec URIs, or patterns of them (`catalog.source.patterns`).
        include: glob patterns over the path below the given folder; where given, one must match.
        exclude: glob patterns of which none may match.
        labels: where the ground truth of image files lies; a label is listed as no image. One that
            two images claim is given to neither.

    Raises:
        SourceError: a URI does not exist, or a folder cannot be listed that `exclude` does not
            cover.
        PlaceError: a link leads to a place that is not there.
    """
    listed = _Listed(tuple(include), tuple(exclude), labels)
    passed: Counter[str] = Counter()
    for folder in folders_of(uris, passed, tuple(exclude)):
        listed.take(folder)
    return listed.finish(passed)


class _Listed:
    def __init__(
        self, include: tuple[str, ...], exclude: tuple[str, ...], labels: Labels | None
    ) -> None:
        self._include, self._exclude = include, exclude
        self._claims = Claims(labels) if labels is not None else None
        self._parts: dict[str, tuple[str | None, ...]] = {}  # what lies beside each, and its stamp
        self._passed: dict[str, str] = {}
        self._rows: dict[str, str] = {}
        self._unread: Counter[str] = Counter()
        self._folders: set[str] = set()

    def take(self, folder: Folder) -> None:
        self._folders.add(folder.uri)
        cut = {name: (stem_of(name), suffix_of(name)) for name in folder.files}
        images = {stem for stem, suffix in cut.values() if suffix in IMAGE_SUFFIXES}
        sidecars = _sidecars(cut)
        used = self._read_tables(folder)
        others: list[str] = []
        for name, (stem, suffix) in cut.items():
            if folder.asked is not None and name not in folder.asked:
                continue
            if suffix not in _WANTED:
                others.append(name)
                continue
            uri = folder.uri + folder.files[name]
            chosen = self._chosen(folder.below + name)
            if not chosen:
                self._passed[uri] = "excluded"
            elif suffix in _CONTAINERS:
                self._parts[uri] = (*(None,) * len(sidecars), _stamp(folder, [name]))
            else:
                # By its stem, else by its whole name: a.jpg.txt.
                found = [n.find(stem, images) or n.find(name, images) for n in sidecars]
                beside = [one for one in found if one]
                ends = (one and folder.files[one] for one in found)
                self._parts[uri] = (*ends, _stamp(folder, [name, *beside]))
                used.update(beside)
            if self._claims is not None and suffix in IMAGE_SUFFIXES:
                self._claims.add(uri, folder.below + name, counts=chosen)
        for name in others:
            if name not in used:
                suffix = cut[name][1]
                kind = printable(f".{suffix}") if suffix else "no suffix"
                self._passed[folder.uri + folder.files[name]] = kind
        if self._claims is not None:
            self._claims.lie_in(folder, images)

    def _read_tables(self, folder: Folder) -> set[str]:
        """Take what tables in a folder say of images below it; return the tables' names."""
        tables = [name for name in folder_tables.NAMES if name in folder.files]
        for name in tables:
            for below, row in read_folder_table(folder.uri + folder.files[name], self._unread):
                self._rows.setdefault(folder.uri_of(below), row)
        return {*tables}

    def _chosen(self, relative: str) -> bool:
        if any(fnmatch(relative, pattern) for pattern in self._exclude):
            return False
        return not self._include or any(fnmatch(relative, pattern) for pattern in self._include)

    def _kind(self, uri: str) -> Kind:
        suffix, stem = suffix_of(uri), stem_of(uri)
        if suffix == "parquet" and (f"{stem}.tar" in self._parts or f"{stem}/" in self._folders):
            return "metadata"
        return "tar" if suffix == "tar" else "parquet" if suffix == "parquet" else "file"

    def _stamp(self, uri: str, label: str | None) -> str | None:
        stamp = self._parts[uri][-1]
        if stamp is not None and uri in self._rows:
            stamp = f"{stamp}, {sha256_hex(self._rows[uri].encode())[:16]}"
        if label is None or stamp is None:
            return stamp
        assert self._claims is not None, "a label without a claim"
        of_label = self._claims.stamps[label]
        return f"{stamp}, {of_label}" if of_label else None

    def finish(self, passed: Counter[str]) -> Listing:
        labels, unlabelled, taken = self._claims.settle() if self._claims else ({}, {}, set())
        for uri in taken:
            self._parts.pop(uri, None)
            self._passed[uri] = "labels"
        ignored = passed + Counter(
            kind for uri, kind in self._passed.items() if uri not in self._parts
        )
        uris = sorted(self._parts)
        if lost := len(self._rows.keys() - self._parts.keys()):
            ignored["rows of a folder's table whose image is not there"] += lost
        ignored += self._unread
        columns: dict[str, list[str | None]] = {
            "uri": [*uris],
            "kind": [self._kind(uri) for uri in uris],
        }
        for at, kind in enumerate(_SIDECARS):
            columns[kind] = [self._parts[uri][at] for uri in uris]
        columns["row"] = [self._rows.get(uri) for uri in uris]
        columns["label"] = [labels.get(uri) for uri in uris]
        columns["unlabelled"] = [unlabelled.get(uri) for uri in uris]
        columns["stamp"] = [self._stamp(uri, labels.get(uri)) for uri in uris]
        return Listing(table=pa.table(columns, schema=PARTS), ignored=dict(ignored))


def _stamp(folder: Folder, names: list[str]) -> str | None:
    stamps = [folder.stamp(name) for name in names]
    return ", ".join(stamps) if all(stamps) else None


def _sidecars(cut: dict[str, tuple[str, str]]) -> list[Names]:
    """Return the files that may lie beside an image, by kind; of two suffixes the first counts.

    Args:
        cut: the stem and the suffix of each name in a folder.
    """
    found = []
    for suffixes in _SIDECARS.values():
        names: dict[str, str] = {}
        for wanted in reversed(suffixes):
            these = sorted((n, stem) for n, (stem, suffix) in cut.items() if suffix == wanted)
            names |= {stem: name for name, stem in these}
        found.append(Names(names.items()))
    return found
