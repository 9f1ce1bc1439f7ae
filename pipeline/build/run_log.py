"""What ran when: JSON lines, the only files of a dataset that differ between equal builds."""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from catalog import storage

LOGS = "logs"


_UPLOAD_EVERY = 60.0  # seconds between uploads of a log that lies on remote storage


class RunLog:
    """One build's log: appended to line by line on a local disk, uploaded each minute elsewhere."""

    def __init__(self, dataset: str) -> None:
        start = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self._uri = storage.join(dataset, LOGS, f"build-{start}-{os.getpid()}.jsonl")
        self._path: Path | None = storage.local_path(self._uri)
        self._lines: list[str] = []
        self._uploaded = time.monotonic()
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, event: str, **fields: Any) -> None:
        """Add one event with the time it happened."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, **fields}) + "\n"
        if self._path is None:
            self._lines.append(line)
            if time.monotonic() - self._uploaded > _UPLOAD_EVERY:
                self._upload()
            return
        with self._path.open("a") as file:
            file.write(line)

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
        if self._path is None:
            self._upload()

    def _upload(self) -> None:
        storage.write_atomic(self._uri, "".join(self._lines).encode())
        self._uploaded = time.monotonic()
