"""Counted numbers: what a figure needs, however many rows it stands for."""

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

MOST_BINS = 32
_FEWEST_BINS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A value that is drawn into a histogram: a threshold, a cut-off."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How often values fall into consecutive bins.

    Attributes:
        edges: ascending, one more than bins.
        counts: of each bin; the last one holds its upper edge too.
        log: the bins are equally wide on a logarithmic scale.
        median: of all values.
        lowest: of all values.
        highest: of all values.
        marks: what to draw beside the bars.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    log: bool
    median: float
    lowest: float
    highest: float
    marks: tuple[Mark, ...] = ()

    @property
    def total(self) -> int:
        """Values counted."""
        return sum(self.counts)

    def tallest(self, behind: "Histogram | None" = None) -> int:
        """Return the height of the tallest bar, with another histogram stacked on top."""
        others = behind.counts if behind else (0,) * len(self.counts)
        return max(a + b for a, b in zip(self.counts, others, strict=True))


def count(
    values: np.ndarray | pa.ChunkedArray | pa.Array,
    *,
    span: tuple[float, float] | None = None,
    marks: tuple[Mark, ...] = (),
    log: bool = False,
    bins: int | None = None,
) -> Histogram | None:
    """Count values into bins; nulls and what is not finite are left out.

    Args:
        values: numbers.
        span: first and last edge; None takes them from the values and the marks.
        marks: to be drawn.
        log: allow a logarithmic scale; used where the values span a factor of four or more.
        bins: how many; None takes more for more values, 8 to 32.

    Returns:
        None where no value is left to count.
    """
    known = _finite(values)
    if not len(known):
        return None
    low, high = span or _span(known, marks)
    whole = span is None and bool(np.all(known == np.round(known)))
    log = log and low > 0 and high / low >= 4
    bins = bins or min(MOST_BINS, max(_FEWEST_BINS, math.isqrt(4 * len(known))))
    edges = _edges(low, high, bins, whole=whole, log=log)
    counts, _ = np.histogram(np.clip(known, edges[0], edges[-1]), edges)
    return Histogram(
        edges=tuple(float(edge) for edge in edges),
        counts=tuple(int(number) for number in counts),
        log=log,
        median=float(np.median(known)),
        lowest=float(known.min()),
        highest=float(known.max()),
        marks=marks,
    )


def _finite(values: np.ndarray | pa.ChunkedArray | pa.Array) -> np.ndarray:
    if not isinstance(values, np.ndarray):
        values = values.drop_null().to_numpy(zero_copy_only=False) if len(values) else np.empty(0)
    known = np.asarray(values, dtype=np.float64)
    return known[np.isfinite(known)]


def _span(known: np.ndarray, marks: tuple[Mark, ...]) -> tuple[float, float]:
    places = [float(known.min()), float(known.max()), *(mark.at for mark in marks)]
    return min(places), max(places)


def _edges(low: float, high: float, bins: int, *, whole: bool, log: bool) -> np.ndarray:
    if log:
        return np.geomspace(low, high, bins + 1)
    if whole:  # bins of equal whole width, so that none looks fuller by rounding
        width = math.ceil((high - low + 1) / bins)
        return low - 0.5 + width * np.arange(math.ceil((high - low + 1) / width) + 1)
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # one value, rounding apart
        pad = abs(low) / 10 or 0.5
        low, high = low - pad, high + pad
    return np.linspace(low, high, bins + 1)
