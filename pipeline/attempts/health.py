"""Whether a place is fit to work: units that fail as a whole, workers that fail unit after unit.

What a sick machine does to images looks like bad images. Where most of a unit fails in one way, or
a worker fails several units in a row, the place is suspected, not the images.
"""

import threading

import pyarrow.parquet as pq

from catalog.dataset.commits import Attempt
from catalog.errors import MISSING, PlaceError
from pipeline.attempts.outcome import UnitFailure, UnitReport

_FEW = 8  # images that fail alike prove nothing by themselves: a small unit may be unlucky
_FEW_MISSING = 2  # files do not go missing by bad luck
_MISSING = {f"failed:{error.__name__}" for error in MISSING}


def check_share(attempt: Attempt, limit: float) -> None:
    """Refuse to commit a unit of which too many images failed in one way.

    Args:
        attempt: at the unit, finished.
        limit: share of the unit's images above which one class of failure is the place's, 0..1.

    Raises:
        PlaceError: too many failed alike, and not just a few.
    """
    images = sum(attempt.counts.values())
    for status, count in attempt.counts.items():
        few = _FEW_MISSING if status in _MISSING else _FEW
        if status.startswith("failed:") and count >= few and count > limit * images:
            raise PlaceError(
                f"{count} of {images} images {status.replace(':', ' with ')}, the first with: "
                f"{_first_detail(attempt, status)!r}. So many tell of this place, not of the "
                "images; if they are to blame after all, --max-failed-share-of-a-unit 1 records "
                "them so"
            )


def _first_detail(attempt: Attempt, status: str) -> str:
    rows = pq.read_table(attempt.rows, columns=["status", "detail"]).to_pylist()
    return next(row["detail"] or "" for row in rows if row["status"] == status)


class Health:
    """Counts the units that a worker failed in a row for reasons of its place; safe in threads."""

    def __init__(self, allowed: int) -> None:
        """Begin healthy; `allowed` such units in a row are a sickness."""
        self._allowed = allowed
        self._lock = threading.Lock()
        self._failed = 0

    def tell(self, result: UnitReport | UnitFailure) -> None:
        """Take note of what became of a unit."""
        failed = isinstance(result, UnitFailure) and result.of_the_place
        with self._lock:
            self._failed = self._failed + 1 if failed else 0

    @property
    def sick(self) -> bool:
        """Whether the worker should leave: another one, elsewhere, may do better."""
        return self._failed >= self._allowed
