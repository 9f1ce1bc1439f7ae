"""Samples that are kept out of training, to measure on: the last rows of a view.

Views are in rank order and subsets are its beginnings, so that the last rows of a subset are rows
of every larger one: runs that are to be compared hold out of the largest view that any of them
sees, and train on beginnings of what is left.
"""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

from catalog.dataset.dataset import View
from catalog.sample import Sample
from training.data.loader import SampleView
from training.data.order import Sizes
from training.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Neighbouring rows of a view that is no dataset's: a view as well, picklable where that is.

    Attributes:
        view: the whole.
        start: its first row here.
        stop: one past the last.
    """

    view: SampleView
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The view's name with the rows, counted from 0."""
        return f"{self.view.name}[{self.start}:{self.stop}]"

    @property
    def fingerprint(self) -> str:
        """Identity of the rows: a hash over that of the view and their numbers; hex."""
        identity = f"{self.view.fingerprint}[{self.start}:{self.stop}]"
        return hashlib.sha256(identity.encode()).hexdigest()[:32]

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the condition maps that each sample holds."""
        return self.view.conditions

    def __len__(self) -> int:
        return self.stop - self.start

    def row_sizes(self) -> Sizes | None:
        """Return (height, width) in pixels of every row, as the view tells them."""
        sizes = self.view.row_sizes()
        return None if sizes is None else sizes[self.start : self.stop]

    def read(self, index: int) -> Sample:
        """Return the sample at `index` of these rows, verified; raises IndexError outside them."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {self.name}, which has {len(self)}")
        return self.view.read(self.start + index)


class Split(NamedTuple):
    """A view in two parts without a common row."""

    training: SampleView
    held_out: SampleView


def held_out_view(view: SampleView, count: int) -> Split:
    """Keep the last `count` rows of a view out of training.

    Args:
        view: rows of a dataset.
        count: how many to hold out; 0 leaves the view itself for training.

    Raises:
        DataError: nothing would be left to train on.
    """
    rows = len(view)
    if not 0 <= count < max(rows, 1):
        raise DataError(
            f"cannot hold {count:,} rows out of view {view.name!r}, which has {rows:,}: at least 1 "
            "must be left to train on"
        )
    left = rows - count
    training = _rows(view, 0, left) if count else view
    return Split(training=training, held_out=_rows(view, left, rows))


def _rows(view: SampleView, start: int, stop: int) -> SampleView:
    if not isinstance(view, View):
        return Rows(view=view, start=start, stop=stop)
    name = f"{view.name}[{start}:{stop}]"  # a dataset's own view has a table, which others read
    return View(view.dataset, name, view.table.slice(start, stop - start))
