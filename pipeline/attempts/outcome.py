"""What became of one call for a unit: a report, or a failure with its remedy."""

import errno
from dataclasses import dataclass

from catalog.dataset.commits import Outcome
from catalog.errors import DatasetError, DeterminismError


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitReport:
    """What became of one call for a unit.

    Attributes:
        index: of the unit in the plan.
        unit_id: 32 hex characters.
        outcome: ``committed``, or what an earlier attempt's commit made of this one.
        counts: images by status.
        seconds: wall time of the whole call.
        stages: seconds by stage, summed over threads.
        worker: host and process.
        device_busy: share of its time since the first network call that the worker's device worked.
        caption_batches: calls of the captioning network; 0 where every text was there already.
        network_images: images that the networks looked at, since the worker started.
    """

    index: int
    unit_id: str
    outcome: Outcome
    counts: dict[str, int]
    seconds: float
    stages: dict[str, float]
    worker: str
    device_busy: float | None
    caption_batches: int
    network_images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFailure:
    """A call for a unit that committed nothing.

    Attributes:
        index: of the unit in the plan.
        unit_id: 32 hex characters.
        error: class of what was raised.
        detail: its message.
        fatal: whether every other unit would fail alike.
    """

    index: int
    unit_id: str
    error: str
    detail: str
    fatal: bool

    @classmethod
    def of(cls, error: Exception, *, index: int, unit_id: str, dataset: str) -> "UnitFailure":
        """Return the failure of a unit of `dataset` for what was raised."""
        return cls(
            index=index,
            unit_id=unit_id,
            error=type(error).__name__,
            detail=_explain(error, dataset),
            fatal=isinstance(error, DeterminismError | DatasetError) or _disk_is_full(error),
        )


def _disk_is_full(error: BaseException) -> bool:
    """Say whether an error is that of a storage without room; no unit gets past it."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _explain(error: BaseException, dataset: str) -> str:
    """Return the message of an error, with the remedy where there is one."""
    if _disk_is_full(error):
        return f"no room is left to write {dataset}: make room"
    return str(error) or type(error).__name__
