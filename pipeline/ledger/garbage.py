"""What died builds leave in a dataset's folder, found and removed; never a committed file.

A build sweeps when its last unit is committed. Until then, or where one was given up, there may be
attempts that were killed (``tmp/``), files that never got their final name (``.<name>.<hex>.tmp``),
shards whose attempt died before its commit, and marks of attempts at units since committed. Beside
these there may be the files of a snapshot that was not taken to the end, or not dropped to it.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, TypeAlias

from catalog import storage
from catalog.dataset import busy, commits
from catalog.dataset.busy import ATTEMPTS
from catalog.dataset.commits import SHARDS, UNIT_FILE
from catalog.dataset.dataset import MANIFEST, REJECTS, Dataset
from catalog.dataset.orphans import check_views
from catalog.dataset.snapshots import SNAPSHOTS, snapshot_names
from catalog.storage import Entry
from pipeline.attempts import marks

Kind: TypeAlias = Literal["attempt", "temporary", "orphan", "mark", "snapshot"]

_TMP = "tmp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """A file that no reader of the dataset would miss.

    Attributes:
        name: its path below the dataset.
        kind: ``attempt``: of one that ended; ``temporary``: never got its final name; ``orphan``: a
            shard or its rows that no commit names; ``mark``: of an attempt at a committed unit;
            ``snapshot``: of one without its record.
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
    """List garbage older than `older_than` seconds.

    What belongs to work whose mark was touched since, or in the last minutes, is none, however old.

    Raises:
        DatasetError: a commit cannot be read, or manifest and subsets name shards that no commit
            names, as a compaction leaves them that did not end; so nothing is known to be garbage.
    """
    now = time.time()
    entries = storage.walk(dataset.uri)  # before the rest: what is named later is not in it
    at_work = _at_work(dataset, older_than)
    done = commits.read_commits(dataset.uri)
    kept = {file.name for commit in done for file in commit.files}
    check_views(dataset, kept)
    units = {commit.unit_id for commit in done}
    taken = set(snapshot_names(dataset.uri))
    leftovers = _Leftovers(dataset.unit_ids, kept, units, at_work, taken)
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

    def __init__(
        self,
        unit_ids: Sequence[str],
        kept: set[str],
        done: set[str],
        at_work: set[str],
        snapshots: set[str],
    ) -> None:
        self._unit_ids = unit_ids
        self._kept = kept
        self._done = done
        self._at_work = at_work
        self._snapshots = snapshots

    def __call__(self, entry: Entry) -> Iterator[tuple[Kind, str | None]]:
        path = PurePosixPath(entry.name)
        if path.parts[0] == _TMP:
            if path.parts[1].partition(".")[0] not in self._at_work:
                yield "attempt", None
        elif path.name.startswith(".") and path.name.endswith(".tmp"):
            yield "temporary", None
        elif path.parts[0] == ATTEMPTS:
            owner = path.name.partition(".")[0]
            aside = owner in (busy.CARD, marks.RUN) and owner not in self._at_work
            if owner in self._done or aside:
                yield "mark", owner if owner in self._done else None
        elif path.parts[0] == SNAPSHOTS and len(path.parts) == 3:
            if path.parts[1] not in self._snapshots and path.name in (MANIFEST, REJECTS):
                yield "snapshot", None
        elif path.parts[:-1] == (SHARDS,) and path.name not in self._kept:
            yield from self._orphan(path.name)

    def _orphan(self, name: str) -> Iterator[tuple[Kind, str | None]]:
        """Tell a unit's file from another's, with its unit where that is planned."""
        if match := UNIT_FILE.fullmatch(name):
            index = int(match[1])
            unit = self._unit_ids[index] if index < len(self._unit_ids) else ""
            if unit not in self._at_work or not unit.startswith(match[2]):
                yield "orphan", unit if unit.startswith(match[2]) else None


def _at_work(dataset: Dataset, older_than: float) -> set[str]:
    """Return the units, and what else, at which somebody works by the marks' last touch."""
    alive = busy.alive(dataset.uri, within=max(older_than, busy.LAPSES_AFTER))
    return {name.partition(".")[0] for name in alive}


def _is_wanted(dataset: Dataset, orphan: Garbage, older_than: float) -> bool:
    """Say whether an attempt runs that may commit the orphan as its own, or has done so.

    An attempt marks its unit before it begins, so the look at the marks has to come first. The mark
    of one that died stands as well; it is told by its age.
    """
    if orphan.unit_id is None:
        return False
    if orphan.unit_id in _at_work(dataset, older_than):
        return True
    commit = commits.read_commit(dataset.uri, orphan.unit_id)
    names = [] if commit is None else [file.name for file in commit.files]
    return PurePosixPath(orphan.name).name in names


def _remove_empty_folder(dataset: Dataset, garbage: Garbage) -> None:
    root = storage.local_path(dataset.uri)
    if root is not None and garbage.kind in ("attempt", "snapshot"):
        with suppress(OSError):  # other files lie there, or it is tmp/ itself
            (root / garbage.name).parent.rmdir()
