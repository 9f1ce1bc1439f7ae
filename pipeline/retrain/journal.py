"""The journal of a night: what its stages came to, so that a night that was killed goes on.

``nights/<run id>/begun.json``     created once when the night begins
``nights/<run id>/<stage>.json``   created once when the stage is done, with its outcome
``nights/<run id>/outcome.json``   created once when the night has ended
"""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from catalog import storage
from catalog.dataset.snapshots import check_name
from catalog.errors import DatasetError
from catalog.sample import canonical_json
from pipeline.errors import RetrainError, UsageError
from pipeline.retrain import numbered

NIGHTS = "nights"

_BEGUN, _OUTCOME = "begun", "outcome"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:T-]{0,99}")


class Outcome(StrEnum):
    """How a night ended."""

    PROMOTED = "promoted"
    REFUSED = "refused"
    NOTHING_NEW = "nothing new"
    FAILED = "failed"


class Journal:
    """The stages of one night."""

    def __init__(self, folder: str, run_id: str) -> None:
        """Begin a night, or go on with one.

        Args:
            folder: URI of what the schedule keeps.
            run_id: letters, digits and ``-_.:``.

        Raises:
            UsageError: the run id is none.
        """
        if not _NAME.fullmatch(run_id):
            raise UsageError(
                f"run id {run_id!r}: expected at most 100 letters, digits and any of - _ . : with "
                "a letter or digit first, for example 2026-03-01"
            )
        try:
            check_name(run_id)  # now, not when the night's snapshot is taken
        except DatasetError as error:
            raise UsageError(f"run id: {error}, for example 2026-03-01") from None
        self.run_id = run_id
        self._folder = storage.join(folder, NIGHTS, run_id)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._record(_BEGUN, {"at": now})

    def stage(self, name: str, do: Callable[[], Any]) -> Any:
        """Return the recorded outcome of a stage; where there is none, do it and record it.

        Args:
            name: of the stage.
            do: returns the outcome, in JSON types without NaN; has to bear being done again, as
                somebody may be killed between the doing and the recording.
        """
        if not _NAME.fullmatch(name) or name in (_BEGUN, _OUTCOME):
            raise UsageError(f"{name!r} cannot be the name of a stage")
        done = self._read(name)
        return self._record(name, do()) if done is None else json.loads(done)

    def read(self, name: str) -> Any:
        """Return the recorded outcome of a stage; None where it is not done."""
        done = self._read(name)
        return None if done is None else json.loads(done)

    def end(self, outcome: Outcome, sentence: str) -> None:
        """Record how the night ended.

        Args:
            outcome: which.
            sentence: why, for people.

        Raises:
            RetrainError: it ended in another way before.
        """
        ours = {"outcome": outcome.value, "sentence": sentence}
        theirs = self._record(_OUTCOME, ours)
        if theirs != ours:
            raise RetrainError(
                f"night {self.run_id} ended before: {theirs['outcome']}, {theirs['sentence']}"
            )

    @property
    def outcome(self) -> tuple[Outcome, str] | None:
        """How the night ended and the sentence why; None where it has not."""
        ended = self._read(_OUTCOME)
        if ended is None:
            return None
        said = json.loads(ended)
        return Outcome(said["outcome"]), said["sentence"]

    def _read(self, name: str) -> bytes | None:
        try:
            return storage.read_bytes(self._path(name))
        except FileNotFoundError:
            return None

    def _record(self, name: str, content: Any) -> Any:
        """Create a file; return what stands in it, which may be somebody else's."""
        uri = self._path(name)
        numbered.create(uri, canonical_json(content))
        return json.loads(storage.read_bytes(uri))

    def _path(self, name: str) -> str:
        return storage.join(self._folder, f"{name}.json")


def nights(folder: str) -> dict[str, bool]:
    """Return the run ids of all nights, the oldest first, and whether each has ended.

    They are told apart by when the storage saw them begin.
    """
    began: dict[str, float] = {}
    ended: set[str] = set()
    for entry in storage.walk(storage.join(folder, NIGHTS)):
        run_id, _, name = entry.name.partition("/")
        if name == f"{_BEGUN}.json":
            began[run_id] = entry.modified
        elif name == f"{_OUTCOME}.json":
            ended.add(run_id)
    order = sorted(began, key=lambda run_id: (began[run_id], run_id))
    return {run_id: run_id in ended for run_id in order}


def unfinished(folder: str) -> str | None:
    """Return the run id of the newest night if it has no outcome yet, else None.

    An older night without one was passed over by the newest: what it made was compared with what
    is no longer current.
    """
    found = nights(folder)
    newest = next(reversed(found), None)
    return None if newest is None or found[newest] else newest
