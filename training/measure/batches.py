"""Work in batches that the device has the memory for, beside a training that may fill it."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from detectors.graph import out_of_memory

_log = logging.getLogger(__name__)

Made = TypeVar("Made")


def in_batches(
    work: Callable[[list[int]], Made], rows: Sequence[int], size: int, *, of: str = "a probe"
) -> list[tuple[list[int], Made]]:
    """Do `work` over rows in order; return each batch with what it gave.

    A batch that the device's memory does not suffice for is tried again in halves, down to one row.

    Args:
        work: of some rows.
        rows: all of them.
        size: rows of a batch at most, 1 or more.
        of: what the batches are of, for the log.

    Raises:
        Exception: what `work` raises; out of memory, for a single row.
    """
    made: list[tuple[list[int], Made]] = []
    done = 0
    while done < len(rows):
        batch = list(rows[done : done + size])
        try:
            made.append((batch, work(batch)))
        except Exception as error:  # torch's own class is asked for where torch is loaded
            if len(batch) == 1 or not out_of_memory(error):
                raise
            size = len(batch) // 2
            _log.warning("out of device memory: batches of %s now have %d", of, size)
        else:
            done += len(batch)
    return made
