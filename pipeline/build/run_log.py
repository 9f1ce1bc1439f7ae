"""What ran when: JSON lines, the only files of a dataset that differ between equal builds."""

import json
import logging
import os
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from catalog import storage

log = logging.getLogger(__name__)

LOGS = "logs"

_UPLOAD_EVERY = 60.0  # seconds between uploads of a log that lies on remote storage
_KEPT = 10_000  # lines that wait for a storage in trouble; the oldest are dropped


class RunLog:
    """One build's log: appended to line by line on a local disk, in parts of a minute elsewhere.

    It never ends a build: lines that cannot be written wait for the next try, which is told once.
    """

    def __init__(self, dataset: str) -> None:
        start = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self._stem = storage.join(dataset, LOGS, f"build-{start}-{os.getpid()}")
        self._path: Path | None = storage.local_path(f"{self._stem}.jsonl")
        self._waiting: deque[str] = deque(maxlen=_KEPT)
        self._parts = 0
        self._tried = time.monotonic()
        self._told = False

    def write(self, event: str, **fields: Any) -> None:
        """Add one event with the time it happened."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._waiting.append(json.dumps({"time": now, "event": event, **fields}) + "\n")
        if self._path is not None or time.monotonic() - self._tried > _UPLOAD_EVERY:
            self._save()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.write("stopped", error=type(error).__name__, detail=str(error)[:500])
        if self._waiting:
            self._save()

    def _save(self) -> None:
        """Write what waits, or leave it waiting."""
        data = "".join(self._waiting).encode()
        try:
            if self._path is not None:
                _append(self._path, data)
            else:
                storage.write_atomic(f"{self._stem}-{self._parts:05d}.jsonl", data)
        except Exception as error:  # whatever a disk or a storage says: units count, not their log
            if not self._told:
                log.warning(
                    "the log %s cannot be written: %s; the build goes on", self._stem, error
                )
            self._told = True
        else:
            self._waiting.clear()
            self._parts += 1
        self._tried = time.monotonic()


def _append(path: Path, data: bytes) -> None:
    """Add `data` to a file, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            if file.write(data) < len(data):
                raise OSError(f"no room is left for {path}")
        except OSError:
            file.truncate(end)
            raise
