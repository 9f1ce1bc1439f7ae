"""The folders below the sources that were given, each with the names of its files."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import fsspec

from catalog import storage
from catalog.errors import SourceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """One folder of a source.

    Attributes:
        uri: in the stored form, with a ``/`` at the end.
        below: its path from the folder that was given; empty, or with a ``/`` at the end.
        files: of each file the end of its URI, by its name.
        asked: the names to take, where files were given and not their folder; the others only lie
            beside them. None: all.
    """

    uri: str
    below: str
    files: dict[str, str]
    asked: set[str] | None = field(default=None)


def folders_of(uris: Iterable[str]) -> Iterator[Folder]:
    """Yield the folders below each source, and one for all single files of one folder.

    Raises:
        SourceError: a URI does not exist.
    """
    single: dict[str, set[str]] = {}
    for uri in uris:
        root = storage.local_path(uri)
        if root is None:
            fs, name = fsspec.core.url_to_fs(uri)
            found = fs.find(name)
            if not found:
                raise SourceError(f"no images at {uri}: nothing is stored below it")
            if found == [name]:
                before, _, last = fs.unstrip_protocol(name).rpartition("/")
                single.setdefault(f"{before}/", set()).add(last)
            else:
                yield from _remote_folders(fs, name, found)
        elif root.is_file():
            path = os.path.abspath(root)
            single.setdefault(os.path.dirname(path), set()).add(os.path.basename(path))
        elif root.is_dir():
            yield from _local_folders(root)
        else:
            raise SourceError(f"no images at {uri}: the path does not exist")
    for place, names in single.items():
        yield _remote_siblings(place, names) if "://" in place else _local_siblings(place, names)


def _local_folders(root: Path) -> Iterator[Folder]:
    for folder, _, names in os.walk(root):
        below = os.path.relpath(os.path.join(folder, "_"), root)[:-1]
        yield Folder(uri=_uri_of(folder), below=below, files=_quoted(names))


def _local_siblings(folder: str, names: set[str]) -> Folder:
    try:
        with os.scandir(folder) as entries:
            found = {entry.name for entry in entries if entry.is_file()}
    except PermissionError:  # its files may be opened by name, and nothing beside them is known
        found = set()
    return Folder(uri=_uri_of(folder), below="", files=_quoted(names | found), asked=names)


def _uri_of(folder: str) -> str:
    # Once a folder: quoting and joining whole paths would take most of a listing's time.
    return storage.file_uri(os.path.join(folder, "_"))[:-1]


def _quoted(names: Iterable[str]) -> dict[str, str]:
    return {name: quote_from_bytes(os.fsencode(name)) for name in names}


def _remote_folders(fs: Any, root: str, found: list[str]) -> Iterator[Folder]:
    base = fs.unstrip_protocol(root).rstrip("/") + "/"
    folders: dict[str, list[str]] = {}
    for key in found:
        before, _, name = fs.unstrip_protocol(key).rpartition("/")
        folders.setdefault(f"{before}/", []).append(name)
    for uri, names in folders.items():
        below = uri.removeprefix(base) if uri.startswith(base) else ""
        yield Folder(uri=uri, below=below, files={name: name for name in names})


def _remote_siblings(uri: str, names: set[str]) -> Folder:
    fs, folder = fsspec.core.url_to_fs(uri)
    try:
        listed = fs.ls(folder, detail=True)
        keys = [entry["name"] for entry in listed if entry["type"] == "file"]
    except (FileNotFoundError, PermissionError, NotImplementedError):
        keys = []  # a store that gives objects, and no lists of them
    found = names.union(fs.unstrip_protocol(key).rpartition("/")[2] for key in keys)
    return Folder(uri=uri, below="", files={name: name for name in found}, asked=names)
