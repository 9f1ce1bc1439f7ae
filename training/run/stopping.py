"""SIGTERM and SIGINT wait for the end of a step, so that its checkpoint can be written."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """While it is open, the first signal is only noted; the second acts as ever.

    Handlers belong to a process's main thread: elsewhere, as in a worker of Ray Train, none is set.

    Attributes:
        number: the signal that came to this process; None before.
        agreed: whether all processes know of one, and stop after the step in hand.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.agreed = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def agree(self, told: bool) -> None:
        """Take what the processes told each other: whether one of them got a signal."""
        self.agreed = self.agreed or told

    def obey(self) -> None:
        """Give the noted signal to the handler that was there before; at the end of the work.

        A process that only heard of another's stops as by SIGTERM.
        """
        self._restore()
        if self.number is not None or self.agreed:
            signal.raise_signal(self.number or signal.SIGTERM)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
