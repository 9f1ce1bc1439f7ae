"""Marks of attempts at a unit: what is left of one that no longer runs tells that it died.

``attempts/<unit_id>.<run>.<random>.json`` stands while an attempt runs and goes when it ends in any
orderly way, also with an error; it is touched each minute (`catalog.dataset.busy`). So does
``attempts/run.<run>.json``, of the build that the attempt is one of. A mark counts as a death where
nothing but its own process ended: not where the whole build was killed, or its cluster lost. A few
marks prove nothing; many for one unit are a reason to look at its images one by one.
"""

import json
import os
import platform
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from catalog import storage
from catalog.dataset import busy
from catalog.dataset.busy import ATTEMPTS
from catalog.errors import StorageError
from catalog.sample import canonical_json
from catalog.storage import Entry

FORGOTTEN_AFTER = 86_400.0
"""Seconds without a touch after which a mark is held against no image."""

RUN = "run"
"""First part of the name of a build's own mark, as that of an attempt's is its unit."""

_SUSPECTS = ".suspects.json"


@contextmanager
def running(dataset: str, run: str) -> Iterator[None]:
    """Mark a build while the block runs; where it ends in an orderly way, none of its marks stay.

    A storage that cannot be asked to remove them hides no error of the block.
    """
    try:
        with busy.marked(dataset, f"{RUN}.{run}"):
            yield
    finally:
        with suppress(OSError, StorageError):  # by then its workers are stopped, and did not die
            forget_run(dataset, run)


def count(dataset: str, unit_id: str, run: str) -> int:
    """Return how many attempts at a unit died, as far as marks tell in the build `run`.

    Those of a build that has ended, or that was killed as a whole, do not count; nor do those that
    are older than `FORGOTTEN_AFTER`, or whose process still lives on this machine.
    """
    found = storage.walk(storage.join(dataset, ATTEMPTS))
    builds = {one.name: one for one in found if one.name.startswith(f"{RUN}.")}
    return sum(
        _is_death(dataset, one, builds, run)
        for one in found
        if one.name.startswith(f"{unit_id}.") and not one.name.endswith(_SUSPECTS)
    )


def _is_death(dataset: str, mark: Entry, builds: Mapping[str, Entry], run: str) -> bool:
    if time.time() - mark.modified > FORGOTTEN_AFTER:
        return False
    theirs = mark.name.split(".")[1]
    if theirs == run:
        return True
    build = builds.get(f"{RUN}.{theirs}.json")
    if build is None:
        return False
    owners = [_owner(dataset, one) for one in (mark, build)]
    if None in owners or _lives(owners[0]):
        return False
    # In one process, what the attempt dies of ends the build; on Ray it outlives an attempt's death
    return owners[0] == owners[1] or build.modified - mark.modified > 2 * busy.TOUCHED_EACH


def _owner(dataset: str, mark: Entry) -> tuple[str, int] | None:
    """Return host and process of a mark; None where it is gone, or does not tell."""
    try:
        told = json.loads(storage.read_bytes(storage.join(dataset, ATTEMPTS, mark.name)))
        return str(told["host"]), int(told["process"])
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _lives(owner: tuple[str, int] | None) -> bool:
    """Say whether a process is known to live: one of this machine."""
    if owner is None or owner[0] != platform.node() or owner[1] == os.getpid():
        return False
    try:
        os.kill(owner[1], 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def suspect(dataset: str, unit_id: str, run: str, sha256s: Sequence[str]) -> None:
    """Leave word that one of these images takes for ever, before the process that saw it ends."""
    name = f"{unit_id}.{run}.{uuid.uuid4().hex[:8]}{_SUSPECTS}"
    storage.write_atomic(storage.join(dataset, ATTEMPTS, name), canonical_json(list(sha256s)))


def suspects(dataset: str, unit_id: str) -> set[str]:
    """Return the images of a unit of which such word was left."""
    left = [storage.join(dataset, ATTEMPTS, name) for name in _of_suspects(dataset, unit_id)]
    return {sha256 for uri in left for sha256 in json.loads(storage.read_bytes(uri))}


def acquit(dataset: str, unit_id: str) -> None:
    """Remove that word: the images were looked at, and those that are to blame set aside."""
    for name in _of_suspects(dataset, unit_id):
        storage.remove(storage.join(dataset, ATTEMPTS, name))


@contextmanager
def marked(dataset: str, unit_id: str, run: str) -> Iterator[None]:
    """Mark an attempt at a unit while the block runs; a process that dies in it leaves the mark."""
    with busy.marked(dataset, f"{unit_id}.{run}.{uuid.uuid4().hex[:8]}"):
        yield


def forget(dataset: str, unit_id: str) -> None:
    """Remove all marks of a unit."""
    for name in _marks(dataset, unit_id):
        storage.remove(storage.join(dataset, ATTEMPTS, name))


def forget_run(dataset: str, run: str) -> None:
    """Remove the marks of one build."""
    for name in storage.list_names(storage.join(dataset, ATTEMPTS)):
        if f".{run}." in name:
            storage.remove(storage.join(dataset, ATTEMPTS, name))


def _of_suspects(dataset: str, unit_id: str) -> list[str]:
    return [name for name in _marks(dataset, unit_id) if name.endswith(_SUSPECTS)]


def _marks(dataset: str, unit_id: str) -> list[str]:
    names = storage.list_names(storage.join(dataset, ATTEMPTS))
    return [name for name in names if name.startswith(f"{unit_id}.")]
