"""A file that is not there: gone by itself, or with the place that it lay in."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from catalog import storage
from catalog.errors import MISSING, PlaceError, of_the_place


def blame(error: Exception, uris: Sequence[str], roots: Iterable[str] = ()) -> None:
    """Return where an error is of the image whose files are at `uris`; else raise it.

    Args:
        error: what was met while they were read or worked on.
        uris: of the image's file and of what lies beside it.
        roots: of the sources, where they are known.

    Raises:
        PlaceError: the error is of the place; the message names it.
    """
    if isinstance(error, MISSING):
        check_gone(uris, roots)
    elif isinstance(error, PlaceError):
        raise error
    elif of_the_place(error):
        raise PlaceError(f"{uris[0]}: {type(error).__name__}: {error}") from error


def check_gone(uris: Sequence[str], roots: Iterable[str] = ()) -> None:
    """Return where at least one of the files is missing by itself, its neighbours being there.

    A source that was unmounted leaves an empty folder, or none.

    Args:
        uris: of files of which one was not found.
        roots: of the sources.

    Raises:
        PlaceError: a file's source is not there, the folder that it lay in is empty, or all the
            files are there again.
    """
    missing = [uri for uri in uris if not storage.exists(uri)]
    if not missing:
        raise PlaceError(f"{uris[0]} was not there a moment ago and is there again")
    wanted = list(roots)
    for uri in missing:
        above = [root for root in wanted if uri.startswith(f"{root.rstrip('/')}/")]
        for root in above or [_bucket(uri)]:
            if not storage.exists(root):
                raise PlaceError(f"{uri} cannot be read: nothing is at {root}; is it mounted?")
        _check_folder(uri, wanted)


def _bucket(uri: str) -> str:
    """Return what a remote URI begins with; of a local path the root of all."""
    return "/" if storage.local_path(uri) is not None else "/".join(uri.split("/")[:3])


def _check_folder(uri: str, roots: Sequence[str]) -> None:
    path = storage.local_path(uri)
    if path is None:
        return  # object storages have no empty folders
    there = next(one for one in Path(os.path.realpath(path)).parents if one.is_dir())
    if not any(there.iterdir()):
        meant = (
            ""
            if storage.file_uri(there) in roots
            else (" If its images were removed on purpose, remove the folder as well")
        )
        raise PlaceError(f"{path} cannot be read: {there} is empty; is its disk mounted?{meant}")
