"""An end to images that take for ever: no call of a decoder or a detector can be broken off.

What reads a file from a storage is not watched, nor what a GPU does: it is the place that hangs
there, and no image.
"""

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeAlias

log = logging.getLogger(__name__)

Watch: TypeAlias = Callable[[Sequence[str]], AbstractContextManager[None]]
"""Watches over work on the images with these sha256s, as long as the block runs."""

_LOOKS = 10  # at the clock, in the time that an image may take


def unwatched(sha256s: Sequence[str]) -> AbstractContextManager[None]:
    """Let work take as long as it likes."""
    return nullcontext()


@contextmanager
def watching(limit: float, end: Callable[[Sequence[str]], None]) -> Iterator[Watch]:
    """Yield a watch for the threads of this process, while the block runs.

    Args:
        limit: seconds for one step of the work on one image; 0 for no limit.
        end: is called, in a thread of its own, with the images that take longer. It is to end the
            process. One that cannot even do that, as the work lets no other thread run, is ended
            with a traceback.
    """
    if not limit:
        yield unwatched
        return
    begun: dict[object, tuple[float, Sequence[str]]] = {}
    ended = threading.Event()

    @contextmanager
    def watch(sha256s: Sequence[str]) -> Iterator[None]:
        token = object()
        begun[token] = time.monotonic() + limit * len(sha256s), sha256s
        try:
            yield
        finally:
            begun.pop(token, None)

    def look() -> None:
        while not ended.wait(limit / _LOOKS):
            if sys.__stderr__ is not None:
                faulthandler.dump_traceback_later(limit, exit=True, file=sys.__stderr__)
            for token, (until, sha256s) in list(begun.items()):
                if time.monotonic() > until and begun.pop(token, None) is not None:
                    end(sha256s)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield watch
    finally:
        ended.set()
        looking.join()
        faulthandler.cancel_dump_traceback_later()  # of others, too, until they look again


def alarmed(limit: float) -> Watch:
    """Return a watch that ends this process by SIGALRM; it works on one image at a time."""
    if not limit:
        return unwatched
    signal.signal(signal.SIGALRM, signal.SIG_DFL)

    @contextmanager
    def watch(sha256s: Sequence[str]) -> Iterator[None]:
        signal.setitimer(signal.ITIMER_REAL, limit * len(sha256s))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    return watch


def leave(names: Sequence[str], limit: float, tell: Callable[[], None]) -> None:
    """End this process, whatever its other threads do, and its unit's mark stays.

    Args:
        names: of the images that take too long.
        limit: seconds that one may take.
        tell: leaves word for whoever tries the unit again.
    """
    try:
        log.error("longer than %g s at %s: this process ends", limit, " or ".join(names))
        tell()
    finally:
        os._exit(1)
