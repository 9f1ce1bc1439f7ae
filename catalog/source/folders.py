"""The folders below the sources that were given, each with the names of its files."""

import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

from catalog import storage
from catalog.errors import SourceError
from catalog.source.names import suffix_of
from catalog.source.patterns import expand
from catalog.source.presence import check_gone

_TAGS = ("ETag", "etag", "md5Hash", "generation", "LastModified", "mtime", "created")
"""By which fsspec's file systems tell one content from another, the surest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """One folder of a source.

    Attributes:
        uri: in the stored form, with a ``/`` at the end.
        below: its path from the folder that was given; empty, or with a ``/`` at the end.
        files: of each file the end of its URI, by its name.
        path: of a local folder.
        listed: what the storage's list tells of a remote folder's files, by name.
        asked: the names to take, where files were given and not their folder; the others only lie
            beside them. None: all.
    """

    uri: str
    below: str
    files: dict[str, str]
    path: str | None = None
    listed: Mapping[str, Mapping[str, Any]] | None = None
    asked: set[str] | None = field(default=None)

    def uri_of(self, below: str) -> str:
        """Return the URI of a file by its path below the folder."""
        quoted = below if self.path is None else quote_from_bytes(os.fsencode(below))
        return self.uri + quoted

    def stamp(self, name: str) -> str:
        """Return what changes when a file does: its size with its time or tag; "" if unknown."""
        if self.path is not None:
            try:
                found = os.stat(os.path.join(self.path, name))
            except OSError:  # gone since, or a link to nowhere: it is read to say so
                return ""
            return f"{found.st_size} {found.st_mtime_ns}"
        told = (self.listed or {}).get(name, {})
        tags = (told[tag] for tag in _TAGS if told.get(tag) is not None)
        return f"{told['size']} {tag}" if (tag := next(tags, None)) else ""


def folders_of(
    uris: Iterable[str], passed: Counter[str] | None = None, exclude: Sequence[str] = ()
) -> Iterator[Folder]:
    """Yield the folders below each source, and one for all single files of one folder.

    Args:
        uris: of folders and files, or patterns of them (`catalog.source.patterns`).
        passed: counts the folders that are not read.
        exclude: glob patterns; a folder that they cover whole need not be listed.

    Raises:
        SourceError: a URI does not exist, or a folder cannot be listed.
        PlaceError: a link leads to a place that is not there.
    """
    passed = Counter() if passed is None else passed
    single: dict[str, set[str]] = {}
    for uri in (one for pattern in uris for one in expand(pattern)):
        root = storage.local_path(uri)
        if root is None:
            with storage.remote(uri) as (fs, name):
                found = fs.find(name, detail=True)
            if not found:
                raise SourceError(f"no images at {uri}: nothing is stored below it")
            if list(found) == [name]:
                before, _, last = fs.unstrip_protocol(name).rpartition("/")
                single.setdefault(f"{before}/", set()).add(last)
            else:
                yield from _remote_folders(fs, name, found)
        elif root.is_file():
            path = os.path.abspath(root)
            single.setdefault(os.path.dirname(path), set()).add(os.path.basename(path))
        elif root.is_dir():
            yield from _local_folders(root, exclude, passed)
        else:
            raise SourceError(f"no images at {uri}: the path does not exist")
    for place, names in single.items():
        yield _remote_siblings(place, names) if "://" in place else _local_siblings(place, names)


def _local_folders(root: Path, exclude: Sequence[str], passed: Counter[str]) -> Iterator[Folder]:
    """Walk a folder and what its links lead to, each folder once.

    Links come after all that is reached without one, so that they hide nothing.
    """

    def refuse(error: OSError) -> None:
        below = os.path.relpath(error.filename, root)
        if not any(fnmatch(f"{below}/", pattern) for pattern in exclude):
            raise SourceError(
                f"the folder {error.filename} cannot be listed: {error.strerror}. Let it be read, "
                f"or leave it out with --exclude '{below}/*'"
            ) from error
        passed["folders excluded"] += 1

    seen: set[tuple[int, int]] = set()
    waiting = deque([os.fspath(root)])
    while waiting:
        for folder, folders, names in os.walk(waiting.popleft(), onerror=refuse):
            found = os.stat(folder)
            if (found.st_dev, found.st_ino) in seen:
                passed["folders seen already"] += 1
                folders.clear()
                continue
            seen.add((found.st_dev, found.st_ino))
            links = [path for name in sorted(folders) if os.path.islink(path := f"{folder}/{name}")]
            above = [link for link in links if _holds(link, root)]
            passed.update({"links to a folder around the source": len(above)} if above else {})
            waiting += (link for link in links if link not in above)
            below = os.path.relpath(os.path.join(folder, "_"), root)[:-1]
            read = Folder(uri=_uri_of(folder), below=below, files=_quoted(names), path=folder)
            _check_links(folder, read)
            yield read


def _holds(folder: str, root: Path) -> bool:
    """Say whether a folder holds `root`, somewhere below it."""
    return os.path.realpath(root).startswith(os.path.join(os.path.realpath(folder), ""))


def _check_links(path: str, folder: Folder) -> None:
    """Check that no link leads nowhere that may be one to a folder of images."""
    for name, quoted in folder.files.items():
        if not suffix_of(name) and not os.path.exists(os.path.join(path, name)):
            check_gone([folder.uri + quoted])


def _local_siblings(folder: str, names: set[str]) -> Folder:
    try:
        with os.scandir(folder) as entries:
            found = {entry.name for entry in entries if entry.is_file()}
    except PermissionError:  # its files may be opened by name, and nothing beside them is known
        found = set()
    files = _quoted(names | found)
    return Folder(uri=_uri_of(folder), below="", files=files, path=folder, asked=names)


def _uri_of(folder: str) -> str:
    # Once a folder: quoting and joining whole paths would take most of a listing's time.
    return storage.file_uri(os.path.join(folder, "_"))[:-1]


def _quoted(names: Iterable[str]) -> dict[str, str]:
    return {name: quote_from_bytes(os.fsencode(name)) for name in names}


def _remote_folders(fs: Any, root: str, found: Mapping[str, Any]) -> Iterator[Folder]:
    base = fs.unstrip_protocol(root).rstrip("/") + "/"
    folders: dict[str, dict[str, Any]] = {}
    for key, told in found.items():
        before, _, name = fs.unstrip_protocol(key).rpartition("/")
        folders.setdefault(f"{before}/", {})[name] = told
    for uri, listed in folders.items():
        below = uri.removeprefix(base) if uri.startswith(base) else ""
        yield Folder(uri=uri, below=below, files={name: name for name in listed}, listed=listed)


def _remote_siblings(uri: str, names: set[str]) -> Folder:
    with storage.remote(uri) as (fs, folder):
        try:
            told = [entry for entry in fs.ls(folder, detail=True) if entry["type"] == "file"]
        except (FileNotFoundError, PermissionError, NotImplementedError):
            told = []  # a store that gives objects, and no lists of them
    listed = {fs.unstrip_protocol(one["name"]).rpartition("/")[2]: one for one in told}
    files = {name: name for name in names.union(listed)}
    return Folder(uri=uri, below="", files=files, listed=listed, asked=names)
