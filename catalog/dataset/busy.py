"""Marks of work that goes on in a dataset: files that are touched each minute while it does.

``attempts/<name>.json`` goes when the work ends in any orderly way, also with an error. The age of
one, told from its last touch, says whether its owner still lives.
"""

import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from catalog import storage
from catalog.errors import StorageUnavailable
from catalog.sample import canonical_json

ATTEMPTS = "attempts"

COMPACT = "compact"
"""Name of a compaction's mark; it stands until one ends well, as each begins where one stopped."""

CARD = "card"
"""Name of the mark of whoever writes a card."""

TOUCHED_EACH = 60.0
"""Seconds between two touches of a mark."""

LAPSES_AFTER = 600.0
"""Seconds without a touch after which the owner of a mark is taken for dead."""


@contextmanager
def marked(dataset: str, name: str, *, until_done: bool = False) -> Iterator[None]:
    """Mark some work while the block runs; a process that dies in it leaves the mark, untouched.

    Args:
        dataset: its URI.
        name: of the work; what runs twice at once needs two.
        until_done: leave the mark where the block ends with an error, too.
    """
    uri = storage.join(dataset, ATTEMPTS, f"{name}.json")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    data = canonical_json({"began": now, "host": platform.node(), "process": os.getpid()})
    try:
        with touched(uri, data):
            yield
    except BaseException:
        if not until_done:
            with suppress(OSError, StorageUnavailable):  # it would hide the error of the block
                storage.remove(uri)
        raise
    storage.remove(uri)


@contextmanager
def touched(uri: str, data: bytes, *, each: float | None = None) -> Iterator[None]:
    """Write a file, and again all the time while the block runs; it stays at the end.

    Args:
        uri: of the file.
        data: what stands in it.
        each: seconds between two writings; `TOUCHED_EACH` where not given.
    """
    ended = threading.Event()
    each = TOUCHED_EACH if each is None else each
    touching = threading.Thread(target=_touch, args=(uri, data, each, ended), daemon=True)
    storage.write_atomic(uri, data)
    touching.start()
    try:
        yield
    finally:
        ended.set()
        touching.join()  # or its last touch would bring the file back where it is removed


def _touch(uri: str, data: bytes, each: float, ended: threading.Event) -> None:
    while not ended.wait(each):
        try:
            storage.write_atomic(uri, data)
        except (OSError, StorageUnavailable):
            continue  # the work itself will meet it; the file ages meanwhile


def stands(dataset: str, name: str) -> bool:
    """Say whether a mark is there, touched lately or not."""
    return storage.exists(storage.join(dataset, ATTEMPTS, f"{name}.json"))


def alive(dataset: str, *, within: float = LAPSES_AFTER) -> list[str]:
    """Return the names of the marks that were touched in the last `within` seconds, sorted."""
    now = time.time()
    found = storage.walk(storage.join(dataset, ATTEMPTS))
    fresh = [mark.name for mark in found if now - mark.modified < within]
    return [name.removesuffix(".json") for name in fresh if not storage.is_temporary(name)]
