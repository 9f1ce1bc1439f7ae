"""The loader: a position is one integer.

Training walks over global sample indices 0, 1, 2, ... Which row an index reads is a pure function
(`training.data.order`), and so is what is drawn for it. So a run resumes at an integer, and the
number of workers and processes changes nothing about what is read.

A damaged sample does not end a run. An index whose row is damaged shows, with its own draws, the
row of the next index of the same optimizer step, and behind the step's last index comes its first:
a function of the order and of which rows are damaged, and of nothing else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch.utils.data import DataLoader, Dataset

from training.data.augment import Augment
from training.data.buckets import order_of
from training.data.draws import keyed_generator
from training.data.order import Order
from training.data.pixels import to_unit
from training.data.reading import Damage, Pair, Reader, size_text
from training.data.view import SampleView
from training.errors import DamagedSample, DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One decoded sample.

    Attributes:
        index: global sample index.
        key: the sample's key in the dataset.
        image: RGB.
        hint: the condition, RGB, of the image's height and width.
        caption: the text; "" where it was dropped.
        passed_over: damaged samples in whose place this one is shown.
    """

    index: int
    key: str
    image: UInt8[np.ndarray, "h w 3"]
    hint: UInt8[np.ndarray, "h w 3"]
    caption: str
    passed_over: tuple[Damage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Examples of one size, ready for the networks, on the CPU.

    Attributes:
        pixel_values: images, -1..1.
        hint: conditions, 0..1.
        captions: one text a sample; "" where it was dropped.
        keys: the samples' keys in the dataset.
        indices: the samples' global indices.
        passed_over: damaged samples in whose place others are shown, each at most once.
    """

    pixel_values: Float[torch.Tensor, "b 3 h w"]
    hint: Float[torch.Tensor, "b 3 h w"]
    captions: list[str]
    keys: list[str]
    indices: list[int]
    passed_over: list[Damage]


def drops_prompt(seed: int, index: int, probability: float) -> bool:
    """Say whether the global sample `index` is shown without its prompt (paper 3.3)."""
    return bool(keyed_generator(seed, "prompt", index).random() < probability)


class Examples(Dataset[Example]):
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
        self._reader = Reader(view, condition, multiple=1 if any_size else multiple)
        self.order = self._order(group)

    def __getitem__(self, index: int) -> Example:
        """Return global sample `index`, any integer from 0.

        Raises:
            DataError: all samples of its step are damaged, or it cannot be augmented as asked for.
            DataUnavailable: the storage did not give the sample, after all tries.
        """
        pair, passed_over = self._read(index)
        noted = pair.sample.metadata.get("conditions", {}).get(self._condition, {})
        image, hint = self._augment.apply(
            pair.image,
            pair.hint,
            seed=self._seed,
            index=index,
            detector=self._detector,
            parameters=noted,
        )
        dropped = drops_prompt(self._seed, index, self._prompt_dropout)
        return Example(
            index=index,
            key=pair.sample.key,
            image=image,
            hint=hint,
            caption="" if dropped else pair.sample.caption,
            passed_over=passed_over,
        )

    def _order(self, group: int | None) -> Order:
        if self._augment.crop is not None:
            self._augment.check_sizes(self._view.row_sizes())
            group = None  # what is shown has one size, whatever the rows have
        sizes = None if group is None else self._view.row_sizes()
        return order_of(len(self._view), sizes, seed=self._seed, group=group)

    def _read(self, index: int) -> tuple[Pair, tuple[Damage, ...]]:
        """Return what `index` shows, and the damaged rows that come before it in its step."""
        passed: dict[int, Damage] = {}
        first = index - index % self._step
        for place in range(self._step):
            row = self.order.row_of(first + (index + place) % self._step)
            if row in passed:  # a step longer than the view shows a row again
                continue
            try:
                return self._reader.read(row), tuple(passed.values())
            except DamagedSample as error:
                passed[row] = self._reader.damage(row, error)
        raise DataError(_none_left(list(passed.values())))


def collate(examples: Sequence[Example]) -> Batch:
    """Stack examples into a batch.

    Raises:
        DataError: the examples have more than one size.
    """
    sizes = sorted({size_text(example.image) for example in examples})
    if len(sizes) > 1:
        raise DataError(
            f"a batch mixes the sizes {', '.join(sizes)}; rebuild the dataset with one size, "
            "train with aspect_buckets, or with batch_size 1"
        )
    return Batch(
        pixel_values=to_unit([example.image for example in examples]) * 2 - 1,
        hint=to_unit([example.hint for example in examples]),
        captions=[example.caption for example in examples],
        keys=[example.key for example in examples],
        indices=[example.index for example in examples],
        passed_over=list(dict.fromkeys(one for each in examples for one in each.passed_over)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexBatches:
    """The global sample indices that one process reads, batch by batch.

    Attributes:
        start: first global sample index of the run.
        stop: one past the last; the range holds whole rounds of ``batch_size * processes``.
        batch_size: samples a batch.
        rank: which process this is, 0..processes-1.
        processes: how many there are.
    """

    start: int
    stop: int
    batch_size: int
    rank: int = 0
    processes: int = 1

    def __iter__(self) -> Iterator[list[int]]:
        for first in range(self.start, self.stop, self.batch_size * self.processes):
            own = first + self.rank * self.batch_size
            yield list(range(own, own + self.batch_size))

    def __len__(self) -> int:
        return len(range(self.start, self.stop, self.batch_size * self.processes))


def load_batches(examples: Examples, indices: IndexBatches, *, workers: int) -> Iterator[Batch]:
    """Yield the batches of `indices` in order, read by `workers` processes (0: by this one)."""
    batches: Iterator[Batch] = iter(
        DataLoader(examples, batch_sampler=indices, collate_fn=collate, num_workers=workers)
    )
    return batches


def _none_left(damaged: Sequence[Damage]) -> str:
    keys = ", ".join(one.key for one in damaged[:3]) + (" ..." if len(damaged) > 3 else "")
    return (
        f"no sample of an optimizer step can be trained on, all {len(damaged)} are damaged "
        f"({keys}); {damaged[0].error}. `verify DATASET` finds what else is: restore the shards "
        "from a copy, or rebuild the dataset"
    )
