"""Where the time of a unit goes, by stage; and what takes too much of it."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

from pipeline.unit.watch import Watch, unwatched

Stage: TypeAlias = Literal["decode", "network", "detect", "caption", "encode", "write", "commit"]


class StageClock:
    """Adds up seconds by stage; threads that work side by side each count in full."""

    def __init__(self, watch: Watch = unwatched) -> None:
        """Begin at zero; `watch` is over each image as it is worked on."""
        self.watch = watch
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
