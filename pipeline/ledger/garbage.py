"""What died builds leave in a dataset's folder, found and removed; never a committed file.

A build sweeps when its last unit is committed. Until then, or where one was given up, there may be
attempts that were killed (``tmp/``), files that never got their final name (``.<name>.<hex>.tmp``),
shards whose attempt died before its commit, and marks of attempts at units since committed.
"""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, TypeAlias

from catalog import storage
from catalog.dataset import commits
from catalog.dataset.commits import SHARDS
from catalog.dataset.dataset import Dataset
from catalog.storage import Entry
from pipeline.attempts.marks import ATTEMPTS

Kind: TypeAlias = Literal["attempt", "temporary", "orphan", "mark"]

_TMP = "tmp"
# What `commits` names a unit's files; anything else below shards/ is somebody's own.
_UNIT_FILE = re.compile(r"(\d{6,})-([0-9a-f]{8})(-[0-9a-f]{16})?\.(tar|held|parquet)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """A file that no reader of the dataset would miss.

    Attributes:
        name: its path below the dataset.
        kind: ``attempt``: of one that ended; ``temporary``: never got its final name; ``orphan``: a
            shard or its rows that no commit names; ``mark``: of an attempt at a committed unit.
        bytes: its size.
        age: since it was written; seconds.
        unit_id: the unit that it would belong to, where its name says so.
    """

    name: str
    kind: Kind
    bytes: int
    age: float
    unit_id: str | None = None


def find(dataset: Dataset, *, older_than: float) -> list[Garbage]:
    """List garbage older than `older_than` seconds, which must exceed what a unit takes.

    Raises:
        DatasetError: a commit cannot be read, so nothing is known to be garbage.
    """
    now = time.time()
    entries = storage.walk(dataset.uri)  # before the commits: what they name later is not in it
    done = commits.read_commits(dataset.uri)
    kept = {file.name for commit in done for file in commit.files}
    leftovers = _Leftovers(dataset.unit_ids, kept, {commit.unit_id for commit in done})
    return [
        Garbage(name=entry.name, kind=kind, bytes=entry.bytes, age=now - entry.modified, unit_id=id)
        for entry in entries
        if now - entry.modified >= older_than
        for kind, id in leftovers(entry)
    ]


def remove(dataset: Dataset, found: Sequence[Garbage], *, older_than: float) -> Iterator[Garbage]:
    """Remove what `find` found, and yield what is gone; an orphan that is wanted again stays."""
    for garbage in found:
        if garbage.kind == "orphan" and _is_wanted(dataset, garbage, older_than):
            continue
        storage.remove(dataset.path(garbage.name))
        _remove_empty_folder(dataset, garbage)
        yield garbage


class _Leftovers:
    """Says what a file of a dataset's folder is, if it is garbage."""

    def __init__(self, unit_ids: Sequence[str], kept: set[str], done: set[str]) -> None:
        self._unit_ids = unit_ids
        self._kept = kept
        self._done = done

    def __call__(self, entry: Entry) -> Iterator[tuple[Kind, str | None]]:
        path = PurePosixPath(entry.name)
        if path.parts[0] == _TMP:
            yield "attempt", None
        elif path.name.startswith(".") and path.name.endswith(".tmp"):
            yield "temporary", None
        elif path.parts[0] == ATTEMPTS and path.name.partition(".")[0] in self._done:
            yield "mark", path.name.partition(".")[0]
        elif path.parts[:-1] == (SHARDS,) and path.name not in self._kept:
            yield from self._orphan(path.name)

    def _orphan(self, name: str) -> Iterator[tuple[Kind, str | None]]:
        """Tell a unit's file from another's, with its unit where that is planned."""
        if match := _UNIT_FILE.fullmatch(name):
            index = int(match[1])
            unit = self._unit_ids[index] if index < len(self._unit_ids) else ""
            yield "orphan", unit if unit.startswith(match[2]) else None


def _is_wanted(dataset: Dataset, orphan: Garbage, older_than: float) -> bool:
    """Say whether an attempt runs that may commit the orphan as its own, or has done so.

    An attempt marks its unit before it begins, so the look at the marks has to come first. The mark
    of one that died stands as well; it is told by its age.
    """
    if orphan.unit_id is None:
        return False
    marks = storage.walk(dataset.path(ATTEMPTS))
    ours = [mark for mark in marks if mark.name.startswith(f"{orphan.unit_id}.")]
    if any(time.time() - mark.modified < older_than for mark in ours):
        return True
    commit = commits.read_commit(dataset.uri, orphan.unit_id)
    names = [] if commit is None else [file.name for file in commit.files]
    return PurePosixPath(orphan.name).name in names


def _remove_empty_folder(dataset: Dataset, garbage: Garbage) -> None:
    root = storage.local_path(dataset.uri)
    if root is not None and garbage.kind == "attempt":
        with suppress(OSError):  # other files lie there, or it is tmp/ itself
            (root / garbage.name).parent.rmdir()
