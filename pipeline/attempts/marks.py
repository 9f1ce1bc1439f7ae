"""Marks of attempts at a unit: what is left of one that no longer runs tells that it died.

``attempts/<unit_id>.<run>.<random>.json`` stands while an attempt runs and goes when it ends in any
orderly way, also with an error; it is touched each minute (`catalog.dataset.busy`). Two builds at
once mark their attempts beside each other, so a few marks prove nothing; many for one unit are a
reason to look at its images one by one.
"""

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from catalog import storage
from catalog.dataset import busy
from catalog.dataset.busy import ATTEMPTS
from catalog.sample import canonical_json

_SUSPECTS = ".suspects.json"


def count(dataset: str, unit_id: str) -> int:
    """Return how many attempts at a unit have begun and not ended."""
    return sum(not name.endswith(_SUSPECTS) for name in _marks(dataset, unit_id))


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
    """Remove the marks of one build whose workers have been stopped, and did not die."""
    for name in storage.list_names(storage.join(dataset, ATTEMPTS)):
        if f".{run}." in name:
            storage.remove(storage.join(dataset, ATTEMPTS, name))


def _of_suspects(dataset: str, unit_id: str) -> list[str]:
    return [name for name in _marks(dataset, unit_id) if name.endswith(_SUSPECTS)]


def _marks(dataset: str, unit_id: str) -> list[str]:
    names = storage.list_names(storage.join(dataset, ATTEMPTS))
    return [name for name in names if name.startswith(f"{unit_id}.")]
