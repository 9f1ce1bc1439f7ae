"""Samples that are kept out of training, to measure on: drawn by hash, kept out by key.

The hash of its key decides whether a sample is held out, so those are like the rest, and neither
the order of a view nor its size shows in them. They are drawn from the whole dataset and kept out
of every subset of it, and a run keeps its keys in a file, RUN/held_out.json: what the dataset gains
later does not change them, and what is taken down is missing from them.
"""

import hashlib
import heapq
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from catalog.dataset.dataset import View
from catalog.sample import Sample
from catalog.storage import write_atomic
from training.data.order import Sizes
from training.data.view import SampleView
from training.errors import DataError

FILE = "held_out.json"

_USUAL = 16
_TENTH = 10


class Split(NamedTuple):
    """A view in two parts without a common row.

    Attributes:
        training: the view's rows but for those held out, in its order.
        held_out: the rows held out of the whole dataset, in the order of their hashes.
    """

    training: SampleView
    held_out: SampleView


@dataclass(frozen=True, slots=False, kw_only=True)
class Rows:
    """Some rows of a view that is no dataset's: a view as well, picklable where that is.

    Attributes:
        view: the whole.
        places: which of its rows, in order.
        name: of the choice.
    """

    view: SampleView
    places: tuple[int, ...]
    name: str

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the rows: a hash over that of the view and their numbers; hex."""
        identity = f"{self.view.fingerprint} {' '.join(map(str, self.places))}"
        return hashlib.sha256(identity.encode()).hexdigest()[:32]

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the condition maps that each sample holds."""
        return self.view.conditions

    def __len__(self) -> int:
        return len(self.places)

    def keys(self) -> list[str]:
        """Return the key of each row, unread."""
        keys = self.view.keys()
        return [keys[place] for place in self.places]

    def row_sizes(self) -> Sizes | None:
        """Return (height, width) in pixels of every row, as the view tells them."""
        sizes = self.view.row_sizes()
        return None if sizes is None else sizes[list(self.places)]

    def read(self, index: int) -> Sample:
        """Return the sample at `index` of these rows, verified; raises IndexError outside them."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {self.name}, which has {len(self)}")
        return self.view.read(self.places[index])


def choose_held_out(keys: Sequence[str], count: int | None) -> tuple[str, ...]:
    """Return the keys to hold out: those with the lowest hashes, lowest first.

    Args:
        keys: of the whole dataset.
        count: how many; None for 16, or a tenth of the keys where that is less.

    Raises:
        DataError: nothing would be left to train on.
    """
    if count is None:
        count = min(_USUAL, len(keys) // _TENTH)
    if count and count >= len(keys):
        raise DataError(
            f"cannot hold {count:,} samples out of {len(keys):,}: at least 1 must be left to "
            "train on"
        )
    return tuple(heapq.nsmallest(count, keys, key=_hash))


def held_out_view(whole: SampleView, view: SampleView, keys: Collection[str]) -> Split:
    """Split off the rows with these keys.

    Args:
        whole: all rows of the dataset, where the held-out ones are found.
        view: the rows to train on, of the same dataset; all, or a subset.
        keys: of the samples to hold out; those that are not there any more are passed over.

    Raises:
        DataError: nothing is left to train on.
    """
    if not keys:
        return Split(training=view, held_out=_rows(whole, (), "held out"))
    known = set(keys)
    kept = tuple(at for at, key in enumerate(view.keys()) if key not in known)
    if not kept:
        raise DataError(
            f"view {view.name!r} has no rows but the {len(view)} held-out ones: hold out fewer"
        )
    training = view if len(kept) == len(view) else _rows(view, kept, f"{view.name} less held out")
    found = [(_hash(key), at) for at, key in enumerate(whole.keys()) if key in known]
    return Split(
        training=training,
        held_out=_rows(whole, tuple(at for _, at in sorted(found)), "held out"),
    )


def write_held_out(run: Path, keys: Sequence[str]) -> None:
    """Keep the keys that a run holds out in its folder, atomically."""
    write_atomic(str(run / FILE), json.dumps({"keys": list(keys)}, indent=1).encode())


def read_held_out(run: Path) -> tuple[str, ...]:
    """Return the keys that a run holds out; none where it keeps no such file."""
    path = run / FILE
    return tuple(json.loads(path.read_bytes())["keys"]) if path.is_file() else ()


def _hash(key: str) -> str:
    return hashlib.sha256(f"held out\n{key}".encode()).hexdigest()


def _rows(view: SampleView, places: tuple[int, ...], name: str) -> SampleView:
    if not isinstance(view, View):
        return Rows(view=view, places=places, name=name)
    chosen = view.table.take(np.asarray(places, dtype=np.int64))
    # A dataset's own view stays one: it has a table, which others read.
    return View(view.dataset, name, chosen, view.cache)
