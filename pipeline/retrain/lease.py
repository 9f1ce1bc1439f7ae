"""A lease: one schedule at a time works in a folder, wherever its machines are.

``lease/<number>.json``       created once by who takes the lease; the highest number has it
``lease/<number>.alive``      written again each minute while its holder lives
``lease/<number>.released``   written by a holder that ended in any orderly way
``lease/clock``               written to learn what time the storage has

All times that are compared are the storage's own, so the clocks of machines may differ by hours.
A holder that was taken for dead and is not finds a higher number: it asks before it promotes.
"""

import platform
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from catalog import storage
from catalog.dataset import busy
from catalog.errors import StorageUnavailable
from catalog.sample import canonical_json
from pipeline.errors import BusyError, LeaseLost
from pipeline.retrain import numbered

LEASE = "lease"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to work in a folder, as long as nobody else has taken it.

    Attributes:
        folder: its URI.
        number: higher than that of every lease before.
    """

    folder: str
    number: int

    def check(self) -> None:
        """Make sure that this is still the newest lease.

        Raises:
            LeaseLost: it is not.
        """
        leases = storage.join(self.folder, LEASE)
        newest = numbered.newest(leases)
        if newest == self.number:
            return
        if not newest:
            raise LeaseLost(f"{leases} is gone, and with it the lease {self.number}")
        raise LeaseLost(
            f"{self.folder}: {_whose(leases, newest)} took it over with lease {newest}, as lease "
            f"{self.number} was not renewed in time; run the same command again when that has ended"
        )


@contextmanager
def hold(
    folder: str,
    owner: str,
    *,
    renew_each: float | None = None,
    lapses_after: float = busy.LAPSES_AFTER,
) -> Iterator[Lease]:
    """Hold the lease of a folder while the block runs.

    Args:
        folder: its URI.
        owner: who this is, for others to read.
        renew_each: seconds between two signs of life; `busy.TOUCHED_EACH` where not given.
        lapses_after: seconds without one after which others may take the lease.

    Raises:
        BusyError: somebody else holds it.
    """
    leases = storage.join(folder, LEASE)
    newest = numbered.newest(leases)
    if newest:
        _refuse_while_held(folder, newest)
    lease = Lease(folder=folder, number=newest + 1)
    said = {"owner": owner, "host": platform.node(), "lapses_after": lapses_after}
    claim = canonical_json({**said, "token": uuid.uuid4().hex})
    if not numbered.create(numbered.path(leases, lease.number), claim):
        raise BusyError(f"{folder}: {_whose(leases, lease.number)} took it at the same moment")
    alive = numbered.path(leases, lease.number, "alive")
    try:
        with busy.touched(alive, claim, each=renew_each):
            yield lease
    finally:
        with suppress(OSError, StorageUnavailable):  # it lapses by itself
            storage.write_atomic(numbered.path(leases, lease.number, "released"), claim)
            storage.remove(alive)


def _refuse_while_held(folder: str, number: int) -> None:
    leases = storage.join(folder, LEASE)
    if storage.exists(numbered.path(leases, number, "released")):
        return
    clock = storage.join(leases, "clock")
    storage.write_atomic(clock, b"\n")
    now = storage.modified(clock)  # before the signs of life: if we are held up, none looks older
    taken = renewed = storage.modified(numbered.path(leases, number))
    with suppress(FileNotFoundError):
        renewed = storage.modified(numbered.path(leases, number, "alive"))
    quiet, allowed = now - renewed, numbered.read(leases, number)["lapses_after"]
    if quiet < allowed:
        since = datetime.fromtimestamp(taken, UTC).isoformat(timespec="seconds")
        raise BusyError(
            f"{folder}: {_whose(leases, number)} holds it since {since}, and gave a sign of life "
            f"{max(quiet, 0):.0f} s ago; run the same command again when that has ended, or "
            f"{allowed:.0f} s after the last sign"
        )


def _whose(leases: str, number: int) -> str:
    claim = numbered.read(leases, number)
    return f"{claim['owner']} on {claim['host']}"
