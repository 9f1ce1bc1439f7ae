"""Room for what several threads hold at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Room:
    """Holds back who would take more than there is room for; whoever is alone may take any amount.

    Args:
        size: of the room, in the unit of what is held.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def held(self, amount: int) -> Iterator[None]:
        """Wait until there is room for `amount`, and hold it for the length of the block."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + amount <= self._size)
            self._taken += amount
        try:
            yield
        finally:
            with self._changed:
                self._taken -= amount
                self._changed.notify_all()
