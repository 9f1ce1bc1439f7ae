"""RUN/damaged.jsonl: the samples that a run passed over because they are damaged.

A line each: key, row of the view, what is wrong. A run meets a damaged sample again in every epoch,
and when it resumes; it is written once. The main process alone writes.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from catalog.storage import write_atomic
from training.data.reading import Damage
from training.errors import DataError

FILE = "damaged.jsonl"

FLOOR = 10
"""So many damaged samples are borne whatever share of those read they are."""

_log = logging.getLogger(__name__)


def count_damaged(run: Path) -> int:
    """Return how many damaged samples a run has passed over so far."""
    return len(_lines(run / FILE))


class DamageLog:
    """What is damaged of what a run reads, and whether that is too much.

    Args:
        run: the run folder.
        rows: how many there are to train on.
        share: of the distinct rows that this command has read, how much may be damaged where it is
            more than `FLOOR`, 0..1; at 0 nothing may.
        writes: whether this process keeps the file, as the main one does.
    """

    def __init__(self, run: Path, *, rows: int, share: float, writes: bool) -> None:
        self.path = run / FILE
        self._rows = rows
        self._share = share
        self._writes = writes
        self._read = 0
        self._met: dict[str, Damage] = {}

    def add(self, found: Sequence[Damage], samples: int) -> None:
        """Record what was found in a step; a process says what all of them found.

        Args:
            found: damaged samples, some perhaps known.
            samples: how many the step read, in all processes.

        Raises:
            DataError: more than may be is damaged.
        """
        self._read += samples
        if not found:
            return
        self._met |= {one.key: one for one in sorted(found, key=lambda one: one.row)}
        if self._writes:
            self._write(list(self._met.values()))
        if len(self._met) > self._allowed():
            raise DataError(self._too_many())

    def keys(self) -> list[str]:
        """Return the keys of all that the run has passed over; none where there is no file."""
        return [json.loads(line)["key"] for line in _lines(self.path)]

    def _allowed(self) -> float:
        read = min(self._read, self._rows)  # distinct: an epoch shows no row twice
        return max(FLOOR, self._share * read) if self._share else 0

    def _write(self, met: Sequence[Damage]) -> None:
        lines = _lines(self.path)
        known = {json.loads(line)["key"] for line in lines}
        new = [one for one in met if one.key not in known]
        if not new:
            return
        for one in new:
            _log.warning("passed over: %s", one.error)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{line}\n" for line in [*lines, *(json.dumps(asdict(one)) for one in new)])
        write_atomic(str(self.path), text.encode())

    def _too_many(self) -> str:
        some = ", ".join(list(self._met)[:3])
        read = min(self._read, self._rows)
        return (
            f"{len(self._met):,} of the {read:,} samples read are damaged ({some}, ...; all are in "
            f"{self.path}), more than max_damaged_share {self._share:g} bears: restore the shards "
            "that `verify DATASET` names from a copy, or rebuild the dataset, and run the same "
            "command again; it resumes from the last checkpoint"
        )


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
