"""Which row a global sample index reads: a pure function of the seed and the index.

Of a view with n rows that may be read in any order, index g is the row
``epoch_order(seed, g // n, n)[g % n]``. Where a batch must have one size and the rows have several,
`training.data.buckets` says the row.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from jaxtyping import Int, Int64

from training.data.draws import keyed_generator

Sizes = Int[np.ndarray, "n 2"]
"""(height, width) in pixels, a row of a view each."""


class Order(Protocol):
    """Global sample index -> row; picklable, and equal in every process."""

    @property
    def left_out(self) -> int:
        """How many rows of the view no index reads."""
        ...

    def row_of(self, index: int) -> int:
        """Return the row that the global sample `index`, any integer from 0, reads."""
        ...


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, rows: int) -> Int64[np.ndarray, " rows"]:
    """Return the order in which `epoch` visits the rows 0..rows-1: a permutation, read-only."""
    order = keyed_generator(seed, "order", epoch).permutation(rows)
    order.flags.writeable = False
    return order


def row_of(seed: int, index: int, rows: int) -> int:
    """Return the row that the global sample `index` reads, of rows in any order."""
    return int(epoch_order(seed, index // rows, rows)[index % rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Shuffled:
    """The `Order` in which each epoch visits every row once, whatever the rows' sizes.

    Attributes:
        seed: the run's seed.
        rows: how many there are, at least 1.
    """

    seed: int
    rows: int

    @property
    def left_out(self) -> int:
        """0: every row is visited."""
        return 0

    def row_of(self, index: int) -> int:
        """Return the row that the global sample `index`, any integer from 0, reads."""
        return row_of(self.seed, index, self.rows)
