"""The loader: a position is one integer.

Training walks over global sample indices 0, 1, 2, ... Which row an index reads is a pure function
(`training.data.order`), and so is what is drawn for it. So a run resumes at an integer, and the
number of workers and processes changes nothing about what is read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch.utils.data import DataLoader, Dataset

from catalog.images import decode_image
from catalog.sample import Sample
from training.data.augment import Augment, Pixels
from training.data.buckets import order_of
from training.data.draws import keyed_generator
from training.data.order import Order, Sizes
from training.errors import DataError


class SampleView(Protocol):
    """What the loader needs of a `catalog.dataset.dataset.View`; picklable, for the workers."""

    @property
    def name(self) -> str:
        """Name of the choice: ``all``, or a subset's."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identity of the rows, hex."""
        ...

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the condition maps that each sample holds."""
        ...

    def __len__(self) -> int: ...

    def keys(self) -> Sequence[str]:
        """Return the key of each row, unread."""
        ...

    def row_sizes(self) -> Sizes | None:
        """Return (height, width) in pixels of every row, unread; None where nothing tells them."""
        ...

    def read(self, index: int) -> Sample:
        """Return the sample at `index`, verified."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One decoded sample.

    Attributes:
        index: global sample index.
        key: the sample's key in the dataset.
        image: RGB.
        hint: the condition, RGB, of the image's height and width.
        caption: the text; "" where it was dropped.
    """

    index: int
    key: str
    image: UInt8[np.ndarray, "h w 3"]
    hint: UInt8[np.ndarray, "h w 3"]
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Examples of one size, ready for the networks, on the CPU.

    Attributes:
        pixel_values: images, -1..1.
        hint: conditions, 0..1.
        captions: one text a sample; "" where it was dropped.
        keys: the samples' keys in the dataset.
        indices: the samples' global indices.
    """

    pixel_values: Float[torch.Tensor, "b 3 h w"]
    hint: Float[torch.Tensor, "b 3 h w"]
    captions: list[str]
    keys: list[str]
    indices: list[int]


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
        self._multiple = multiple
        self._augment = augment or Augment()
        self._augment.check(detector, multiple=multiple)
        self._detector = detector
        self.order = self._order(group)

    def __getitem__(self, index: int) -> Example:
        """Return global sample `index`, any integer from 0; raises DataError for a wrong size."""
        sample = self._view.read(self.order.row_of(index))
        image, hint = self._pixels(sample, index)
        dropped = drops_prompt(self._seed, index, self._prompt_dropout)
        caption = "" if dropped else sample.caption
        return Example(index=index, key=sample.key, image=image, hint=hint, caption=caption)

    def _order(self, group: int | None) -> Order:
        if self._augment.crop is not None:
            self._augment.check_sizes(self._view.row_sizes())
            group = None  # what is shown has one size, whatever the rows have
        sizes = None if group is None else self._view.row_sizes()
        return order_of(len(self._view), sizes, seed=self._seed, group=group)

    def _pixels(self, sample: Sample, index: int) -> tuple[Pixels, Pixels]:
        image = decode_image(sample.image)
        hint = decode_image(sample.conditions[self._condition])
        if image.shape != hint.shape:
            raise DataError(
                f"sample {sample.key}: image is {_size(image.shape)} but {self._condition} is "
                f"{_size(hint.shape)}; a condition must have its image's size: rebuild the dataset"
            )
        noted = sample.metadata.get("conditions", {}).get(self._condition, {})
        image, hint = self._augment.apply(
            image, hint, seed=self._seed, index=index, detector=self._detector, parameters=noted
        )
        if image.shape[0] % self._multiple or image.shape[1] % self._multiple:
            raise DataError(
                f"sample {sample.key} is {_size(image.shape)}; height and width must be multiples "
                f"of {self._multiple}: rebuild the dataset with such a resolution"
            )
        return image, hint


def collate(examples: Sequence[Example]) -> Batch:
    """Stack examples into a batch.

    Raises:
        DataError: the examples have more than one size.
    """
    sizes = sorted({_size(example.image.shape) for example in examples})
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
    )


def to_unit(images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> Float[torch.Tensor, "b 3 h w"]:
    """Stack RGB images 0..255 into one float32 tensor 0..1."""
    stacked = torch.from_numpy(np.stack(images))  # (B, h, w, 3)
    return stacked.permute(0, 3, 1, 2).contiguous().float() / 255


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


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
