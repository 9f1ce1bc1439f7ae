"""Sources by pattern, as a shell expands them: ``*.jpg``, ``{00000..00010}.tar``, ``{a,b}``."""

import glob
import re
from collections.abc import Iterator
from itertools import islice

import fsspec

from catalog import storage
from catalog.errors import SourceError

_MOST = 1_000_000  # names from the braces of one pattern
_MAGIC = re.compile(r"[*?\[{]")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def expand(uri: str) -> list[str]:
    """Return the sources that a pattern names, sorted; of a name that exists, that alone.

    Raises:
        SourceError: nothing matches, or too much.
    """
    if not _MAGIC.search(uri):
        return [uri]
    path = storage.local_path(uri)
    if path is not None:
        if path.exists():
            return [uri]
        names = _names(str(path), uri)
        found = {one for name in names for one in glob.glob(name, recursive=True)}
    else:
        with storage.remote(uri) as (fs, whole):
            if fs.exists(whole):
                return [uri]
            names = _names(whole, uri)
            found = {fs.unstrip_protocol(one) for name in names for one in _remote(fs, name)}
    if not found:
        raise SourceError(f"no images at {uri}: nothing matches it")
    return sorted(found)


def _remote(fs: fsspec.AbstractFileSystem, name: str) -> list[str]:
    if glob.has_magic(name):
        return [str(one) for one in fs.glob(name)]
    return [name] if fs.exists(name) else []


def _names(pattern: str, uri: str) -> list[str]:
    names = list(islice(_braces(pattern), _MOST + 1))
    if len(names) > _MOST:
        raise SourceError(f"{uri} names more than {_MOST:,} files; write them with * instead")
    return names


def _braces(text: str, start: int = 0) -> Iterator[str]:
    """Yield a text for each choice between braces; those without a choice stay."""
    found = _BRACES.search(text, start)
    if found is None:
        yield text
    elif (choices := _choices(found[1])) is None:
        yield from _braces(text, found.start() + 1)
    else:
        for choice in choices:
            yield from _braces(f"{text[: found.start()]}{choice}{text[found.end() :]}")


def _choices(inside: str) -> Iterator[str] | None:
    if bounds := _RANGE.fullmatch(inside):
        first, last = int(bounds[1]), int(bounds[2])
        width = len(bounds[1]) if bounds[1].startswith("0") else 0
        step = 1 if last >= first else -1
        return (f"{at:0{width}d}" for at in range(first, last + step, step))
    return iter(inside.split(",")) if "," in inside else None
