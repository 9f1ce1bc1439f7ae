"""Where the time of a unit goes, by stage; and how busy its worker's device is."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

Stage: TypeAlias = Literal["decode", "network", "detect", "caption", "encode", "write", "commit"]


class StageClock:
    """Adds up seconds by stage; threads that work side by side each count in full."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def time(self, stage: Stage) -> Iterator[None]:
        """Add the time that the block takes to `stage`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - start
            with self._lock:
                self._seconds[stage] += taken

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each stage so far, to a millisecond."""
        with self._lock:
            return {stage: round(taken, 3) for stage, taken in sorted(self._seconds.items())}


class Device:
    """The one device of a worker: units in hand take turns on it, and its busy time is counted."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._first: float | None = None
        self._busy = 0.0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the device; waiting for it counts as nothing."""
        with self._turn:
            start = time.perf_counter()
            self._first = self._first or start
            try:
                yield
            finally:
                self._busy += time.perf_counter() - start

    @property
    def busy(self) -> float | None:
        """Share of the time since its first turn that the device was held, 0..1; None before."""
        if self._first is None:
            return None
        return round(min(1.0, self._busy / max(time.perf_counter() - self._first, 1e-9)), 4)
