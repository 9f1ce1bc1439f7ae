"""The one device of a worker, and how busy it is."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


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
