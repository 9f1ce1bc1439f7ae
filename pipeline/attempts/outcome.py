"""What became of one call for a unit: a report, or a failure with its remedy."""

import errno
import platform
import tempfile
from dataclasses import dataclass

from catalog import storage
from catalog.dataset.commits import Outcome
from catalog.errors import DatasetError, DeterminismError, of_the_place


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
        caption_tokens: that a captioning endpoint counted, since the worker started.
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
    caption_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFailure:
    """A call for a unit that committed nothing.

    Attributes:
        index: of the unit in the plan.
        unit_id: 32 hex characters.
        error: class of what was raised.
        detail: its message.
        fatal: whether every other unit would fail alike, wherever it is tried.
        of_the_place: whether machine, mount, storage, device or memory are at fault.
        host: of the worker.
        machines: that work on the build; another one may do the unit.
    """

    index: int
    unit_id: str
    error: str
    detail: str
    fatal: bool
    of_the_place: bool = False
    host: str = ""
    machines: int = 1

    @classmethod
    def of(cls, error: Exception, *, index: int, unit_id: str, dataset: str) -> "UnitFailure":
        """Return the failure of a unit of `dataset` for what was raised."""
        return cls(
            index=index,
            unit_id=unit_id,
            error=type(error).__name__,
            detail=_explain(error, dataset),
            fatal=_is_fatal(error, dataset),
            of_the_place=of_the_place(error),
            host=platform.node(),
        )


def _is_fatal(error: Exception, dataset: str) -> bool:
    """Say whether no other machine would get past an error: it is one of the dataset itself."""
    if isinstance(error, DatasetError):
        return not isinstance(error.__cause__, OSError)  # else it could not be read from here
    here = storage.local_path(dataset) is not None  # else it is the machine's own disk
    return isinstance(error, DeterminismError) or (_disk_is_full(error) and here)


def _disk_is_full(error: BaseException) -> bool:
    """Say whether an error is that of a storage without room."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _explain(error: BaseException, dataset: str) -> str:
    """Return the message of an error, with the remedy where there is one."""
    if not _disk_is_full(error):
        return str(error) or type(error).__name__
    if storage.local_path(dataset) is not None:
        return f"no room is left to write {dataset}: make room"
    return f"no room is left on {platform.node()} in {tempfile.gettempdir()}: make room there"
