"""What is current: a log of promotions, of which the newest counts.

``promotions/<number>.json``   created once, never changed
``CURRENT.json``               a copy of the newest, for people and other tools

Who promotes names the record that the candidate was compared with. If another one came meanwhile,
nothing is promoted. A rollback is a record like others, so the log tells it, too.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from catalog import storage
from catalog.sample import canonical_json
from pipeline.errors import PromotionError, UsageError
from pipeline.retrain import numbered
from pipeline.retrain.lease import Lease

PROMOTIONS = "promotions"
CURRENT = "CURRENT.json"
PROMOTED = "promoted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What a night has made and may be promoted.

    Attributes:
        night: its run id.
        dataset: URI.
        generation: how many generations of the dataset's plan belong to it.
        manifest_sha: hex sha256 of the manifest as it is read.
        run: the ControlNet's run folder; None where only a dataset is made.
        figures: what it was judged by; JSON types.
    """

    night: str
    dataset: str
    generation: int
    manifest_sha: str
    run: str | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """Return what a candidate has, without what makes it a record."""
        return {one.name: getattr(self, one.name) for one in fields(Candidate)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion(Candidate):
    """A record of the log.

    Attributes:
        number: 1, 2, ...
        why: `PROMOTED`, or ``rolled back to N``.
        lease: number of the lease under which it was written.
        at: when, by the clock of the machine; ISO, for people only.
    """

    number: int
    why: str
    lease: int
    at: str


def history(folder: str) -> list[Promotion]:
    """Return all records, the oldest first."""
    return [_read(folder, number) for number in numbered.numbers(_log(folder))]


def current(folder: str) -> Promotion | None:
    """Return the newest record; None where nothing was promoted yet."""
    number = numbered.newest(_log(folder))
    return _read(folder, number) if number else None


def promote(folder: str, candidate: Candidate, lease: Lease, *, expected: int) -> Promotion:
    """Make a candidate current; harmless where the same night did it before it was killed.

    Args:
        folder: URI of what the schedule keeps.
        candidate: what passed.
        lease: under which this works.
        expected: number of the record that it was compared with; 0 where there was none.

    Raises:
        LeaseLost: somebody else has taken the folder over.
        PromotionError: another record came meanwhile.
    """
    if numbered.newest(_log(folder)) > expected:
        after = _read(folder, expected + 1)
        # As JSON, in which a tuple is a list.
        alike = canonical_json(after.content()) == canonical_json(candidate.content())
        if alike and after.why == PROMOTED:
            copy_current(folder)
            return after
    return _append(folder, candidate, lease, expected=expected, why=PROMOTED)


def roll_back(folder: str, to: int, lease: Lease) -> Promotion:
    """Make what record `to` holds current again, by a new record.

    Raises:
        UsageError: there is no such record, or it is the current one.
        LeaseLost: somebody else has taken the folder over.
        PromotionError: another record came meanwhile.
    """
    numbers = numbered.numbers(_log(folder))
    if to not in (earlier := numbers[:-1]):
        there = ", ".join(map(str, earlier)) or "none"
        raise UsageError(f"{folder}: cannot roll back to {to}; the earlier promotions are: {there}")
    why = f"rolled back to {to}"
    return _append(folder, _read(folder, to), lease, expected=numbers[-1], why=why)


def copy_current(folder: str) -> None:
    """Write CURRENT.json anew: of somebody who was killed after a promotion it may be old."""
    if (newest := current(folder)) is not None:
        storage.write_atomic(storage.join(folder, CURRENT), _encode(newest))


def _append(
    folder: str, candidate: Candidate, lease: Lease, *, expected: int, why: str
) -> Promotion:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = Promotion(
        **candidate.content(), number=expected + 1, why=why, lease=lease.number, at=now
    )
    lease.check()
    log = _log(folder)
    free = numbered.newest(log) == expected
    if free and numbered.create(numbered.path(log, record.number), _encode(record)):
        copy_current(folder)
        return record
    there = current(folder)
    came = f"{there.number}, of night {there.night}, is current" if there else "there is none"
    raise PromotionError(
        f"{folder}: promotion {expected} was to be followed, but {came}; compare with that"
    )


def _log(folder: str) -> str:
    return storage.join(folder, PROMOTIONS)


def _read(folder: str, number: int) -> Promotion:
    try:
        return Promotion(**numbered.read(_log(folder), number))
    except TypeError as error:
        where = numbered.path(_log(folder), number)
        raise PromotionError(f"{where} is a record of another version: {error}") from error


def _encode(record: Promotion) -> bytes:
    return canonical_json(asdict(record))
