"""Aspect buckets: an order in which every group of `group` samples has one size.

A group is the global sample indices ``k * group .. (k + 1) * group - 1``. With `group` the samples
of one optimizer step of all processes, which a run never changes, every batch of every process lies
inside one group, however the step is divided, and the order does not know how it is.

The rule. Rows of one size are a bucket; one with fewer rows than a group could fill it only by
showing a row twice, so it is left out, and `Buckets.left_out` counts its rows. Each other bucket
has one shuffled ring of its rows and goes round it group by group, from where it stopped. All go
round at the same pace, so that none is favoured: a bucket of n rows can show at most
``n // group * group`` in an epoch without showing one twice, and `pace` is the smallest of these
shares of n, above 1/2. An epoch shows that share of every bucket, rounded to whole groups over the
epochs; rows that filled no whole group come first in the next one.

Hence, over the first K epochs: no row is seen twice in an epoch; two rows of one size are seen
equally often, or one of them once more; any row is seen ``K * pace`` times, by less than 2 fewer
and less than 1 more.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Int64

from training.data.draws import keyed_generator
from training.data.order import Order, Shuffled, Sizes
from training.errors import DataError


class Buckets:
    """The `Order` in which each group has one size; see this module.

    Args:
        sizes: (height, width) in pixels of every row.
        seed: the run's seed.
        group: samples that must have one size, at least 1.

    Raises:
        DataError: no size has enough rows for a group.
    """

    def __init__(self, sizes: Sizes, *, seed: int, group: int) -> None:
        self._seed = seed
        self._group = group
        found, bucket_of, counts = np.unique(sizes, axis=0, return_inverse=True, return_counts=True)
        full = np.flatnonzero(counts >= group)
        if not len(full):
            raise DataError(_too_few(found, counts, group))
        self._rings = [
            _ring(np.flatnonzero(bucket_of.ravel() == at), seed, found[at].tolist()) for at in full
        ]
        rows = [len(ring) for ring in self._rings]
        self._pace = min(Fraction(count // group * group, count) for count in rows)
        self._left_out = len(sizes) - sum(rows)
        self._held: tuple[int, Int64[np.ndarray, " rows"]] = (0, self._epoch(0))

    @property
    def left_out(self) -> int:
        """How many rows have a size that fills no group, and are never visited."""
        return self._left_out

    @property
    def pace(self) -> Fraction:
        """Share of its rows that each bucket shows in an epoch, in the long run; above 1/2..1."""
        return self._pace

    def epoch_start(self, epoch: int) -> int:
        """Return the first global sample index of `epoch`: a multiple of the group."""
        return self._group * sum(self._groups(epoch, ring) for ring in self._rings)

    def row_of(self, index: int) -> int:
        """Return the row that the global sample `index`, any integer from 0, reads."""
        start, rows = self._held
        if not 0 <= index - start < len(rows):
            epoch = self._epoch_of(index)
            start, rows = self._held = self.epoch_start(epoch), self._epoch(epoch)
        return int(rows[index - start])

    def _groups(self, epochs: int, ring: Int64[np.ndarray, " n"]) -> int:
        """Return how many groups a bucket shows in the first `epochs`."""
        pace = self._pace  # in whole numbers: a division of floats would round, and shift the order
        return epochs * pace.numerator * len(ring) // (pace.denominator * self._group)

    def _epoch_of(self, index: int) -> int:
        seen = self._pace * sum(len(ring) for ring in self._rings)  # rows an epoch, in the long run
        epoch = int(index / seen)  # starts are rounded down, so it is this one or soon after
        while self.epoch_start(epoch + 1) <= index:
            epoch += 1
        return epoch

    def _epoch(self, epoch: int) -> Int64[np.ndarray, " rows"]:
        """Return the rows of an epoch in order: each bucket's share of its ring, group by group."""
        generator = keyed_generator(self._seed, "bucket groups", epoch)
        shares = []
        for ring in self._rings:
            first, stop = (self._groups(at, ring) * self._group for at in (epoch, epoch + 1))
            share = ring[np.arange(first, stop) % len(ring)]
            shares.append(generator.permutation(share).reshape(-1, self._group))
        return generator.permutation(np.concatenate(shares)).ravel()


def order_of(rows: int, sizes: Sizes | None, *, seed: int, group: int | None) -> Order:
    """Return the order in which a view is read.

    Rows of one size, or of unknown sizes, and groups of a single sample need no buckets: theirs is
    `Shuffled`.

    Args:
        rows: how many the view has, at least 1.
        sizes: (height, width) in pixels of every row; None where they are not known.
        seed: the run's seed.
        group: samples that must have one size; None where they may have any.

    Raises:
        DataError: no size has enough rows for a group.
    """
    if group is None or group == 1 or sizes is None or (sizes == sizes[0]).all():
        return Shuffled(seed=seed, rows=rows)
    return Buckets(sizes, seed=seed, group=group)


def _ring(rows: Int64[np.ndarray, " n"], seed: int, size: Sequence[int]) -> Int64[np.ndarray, " n"]:
    height, width = size
    return keyed_generator(seed, f"bucket {width}x{height}", 0).permutation(rows)


def _too_few(sizes: Sizes, counts: Int64[np.ndarray, " sizes"], group: int) -> str:
    most = int(counts.argmax())
    height, width = sizes[most]
    return (
        f"a step of {group:,} samples needs as many rows of one size, but of the view's "
        f"{len(sizes):,} sizes the commonest, {width}x{height}, has {counts[most]:,}: train with a "
        "smaller batch, with a crop, or on more rows"
    )
