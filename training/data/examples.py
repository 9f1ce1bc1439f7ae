"""Global sample index -> decoded sample.

Which row an index reads is a pure function (`training.data.order`), and so is what is drawn for it.

A damaged sample does not end a run. An index whose row is damaged shows, with its own draws, the
row of the next index of the same optimizer step, and behind the step's last index comes its first.
Where a whole step is damaged, the rows of the next one stand in for it, likewise. So what is shown
is a function of the order and of which rows are damaged, and of nothing else; and the samples of a
step have one size where the order gives them one.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8
from torch.utils.data import get_worker_info

from catalog.cpus import usable_cpus
from catalog.dataset.latents import Latents
from training.data.augment import Augment
from training.data.buckets import order_of
from training.data.draws import keyed_generator
from training.data.micro_conditions import MicroConditions, micro_conditions
from training.data.order import Order
from training.data.reading import Damage, Encoded, Pair, Reader
from training.data.view import SampleView
from training.errors import DamagedSample, DataError

THREADS = 8
"""Samples of a batch that a process reads at the same time, at most."""

_REACH = 8  # steps whose rows may stand in for the first one's


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One decoded sample.

    Attributes:
        index: global sample index.
        key: the sample's key in the dataset.
        image: RGB; None where it is encoded.
        hint: the condition, RGB, of the image's height and width.
        caption: the text; "" where it was dropped.
        sizes: that a base may be told of, see `training.data.micro_conditions`.
        encoded: image and text as the locked networks see them; None where that is left to them.
        passed_over: damaged samples in whose place this one is shown.
    """

    index: int
    key: str
    image: UInt8[np.ndarray, "h w 3"] | None
    hint: UInt8[np.ndarray, "h w 3"]
    caption: str
    sizes: MicroConditions
    encoded: Encoded | None = None
    passed_over: tuple[Damage, ...] = ()


def drops_prompt(seed: int, index: int, probability: float) -> bool:
    """Say whether the global sample `index` is shown without its prompt (paper 3.3)."""
    return bool(keyed_generator(seed, "prompt", index).random() < probability)


class Examples:
    """Global sample index -> decoded sample.

    Args:
        view: the rows.
        condition: which of the view's conditions is the hint.
        seed: keys the order and the prompt dropout.
        prompt_dropout: share of prompts replaced by "", 0..1.
        multiple: height and width must be multiples of this, in pixels.
        step: samples of an optimizer step of all processes: those that may stand in for a damaged
            one.
        group: samples in a row that must have one size, those of an optimizer step of all
            processes; None leaves it to chance, see `training.data.buckets`.
        augment: what is changed in a sample; None for nothing. With a crop all have one size.
        detector: what made the condition, by its name in recipes; a flip needs it.
        latents: of all rows, in place of their images; none go with a crop.

    Raises:
        DataError: the view is empty, has no such condition, no size with rows for a group, images
            smaller than the crop, or a condition that cannot be flipped.
    """

    def __init__(
        self,
        view: SampleView,
        condition: str,
        *,
        seed: int,
        prompt_dropout: float,
        multiple: int,
        step: int = 1,
        group: int | None = None,
        augment: Augment | None = None,
        detector: str | None = None,
        latents: Latents | None = None,
    ) -> None:
        if condition not in view.conditions:
            known = ", ".join(view.conditions) or "none"
            raise DataError(f"view {view.name!r} has no condition {condition!r}; it has: {known}")
        if len(view) < 1:
            raise DataError(f"view {view.name!r} has no rows; training needs at least 1")
        self._view = view
        self._condition = condition
        self._seed = seed
        self._prompt_dropout = prompt_dropout
        self._step = step
        self._augment = augment or Augment()
        self._augment.check(detector, multiple=multiple)
        self._detector = detector
        any_size = self._augment.crop is not None  # what is shown has the crop's
        assert latents is None or not any_size, "a square's latent is not the image's"
        self._reader = Reader(
            view, condition, multiple=1 if any_size else multiple, latents=latents
        )
        self.order = self._order(group)

    def __getitem__(self, index: int) -> Example:
        """Return global sample `index`, any integer from 0.

        Raises:
            DataError: all samples of its step and the next ones are damaged, or it cannot be
                augmented as asked for.
            DataUnavailable: the storage did not give the sample, after all tries.
        """
        dropped = drops_prompt(self._seed, index, self._prompt_dropout)
        pair, passed_over = self._read(index, dropped=dropped)
        metadata = pair.sample.metadata
        noted = metadata.get("conditions", {}).get(self._condition, {})
        image, hint = self._augment.apply(
            pair.image if pair.image is not None else pair.hint,  # its latent is mirrored already
            pair.hint,
            seed=self._seed,
            index=index,
            detector=self._detector,
            parameters=noted,
        )
        return Example(
            index=index,
            key=pair.sample.key,
            image=image if pair.encoded is None else None,
            hint=hint,
            caption="" if dropped else pair.sample.caption,
            sizes=micro_conditions(
                metadata,
                pair.hint.shape[:2],
                square=self._augment.square(pair.hint.shape[:2], seed=self._seed, index=index),
                mirrored=self._augment.mirrors(self._seed, index),
            ),
            encoded=pair.encoded,
            passed_over=passed_over,
        )

    def _order(self, group: int | None) -> Order:
        if self._augment.crop is not None:
            self._augment.check_sizes(self._view.row_sizes())
            group = None  # what is shown has one size, whatever the rows have
        sizes = None if group is None else self._view.row_sizes()
        return order_of(len(self._view), sizes, seed=self._seed, group=group)

    def read_all(self, indices: Sequence[int]) -> list[Example]:
        """Return the examples of these indices, in order, read at the same time; raises likewise.

        While one waits for a remote storage, the others do too. From a disk, decoding is the work:
        there is a thread a core for it, and one alone in each of several loader processes.
        """
        threads = THREADS if getattr(self._view, "remote", False) else _cores()
        if threads == 1:
            return [self[index] for index in indices]
        return list(_threads(os.getpid(), threads).map(self.__getitem__, indices))

    def _read(self, index: int, *, dropped: bool) -> tuple[Pair, tuple[Damage, ...]]:
        """Return what `index` shows, and the damaged rows that come before it."""
        mirrored = self._augment.mirrors(self._seed, index)
        passed: dict[int, Damage] = {}
        for row in self._candidates(index):
            if row in passed:  # a step longer than the view shows a row again
                continue
            try:
                pair = self._reader.read(row, mirrored=mirrored, dropped=dropped)
                return pair, tuple(passed.values())
            except DamagedSample as error:
                passed[row] = self._reader.damage(row, error)
        raise DataError(_none_left(list(passed.values())))

    def _candidates(self, index: int) -> Iterator[int]:
        """Yield the rows that `index` may show, first its own."""
        place = index % self._step
        for first in range(index - place, index - place + _REACH * self._step, self._step):
            for later in range(self._step):
                yield self.order.row_of(first + (place + later) % self._step)


def _cores() -> int:
    return 1 if get_worker_info() is not None else min(THREADS, usable_cpus())


@lru_cache(maxsize=1)
def _threads(process: int, count: int) -> ThreadPoolExecutor:
    """Return this process's threads; a worker that was forked starts its own."""
    return ThreadPoolExecutor(count, thread_name_prefix=f"samples of {process}")


def _none_left(damaged: Sequence[Damage]) -> str:
    keys = ", ".join(one.key for one in damaged[:3]) + (" ..." if len(damaged) > 3 else "")
    return (
        f"no sample of {_REACH} optimizer steps can be trained on, all {len(damaged)} are damaged "
        f"({keys}); {damaged[0].error}. `verify DATASET` finds what else is: restore the shards "
        "from a copy, or rebuild the dataset"
    )
