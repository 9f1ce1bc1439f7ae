"""The loader: a position is one integer.

Training walks over global sample indices 0, 1, 2, ... Which row an index reads is a pure function
(`training.data.order`), and so is what is drawn for it. So a run resumes at an integer, and the
number of workers and processes changes nothing about what is read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch.utils.data import DataLoader, Dataset

from catalog.errors import CatalogError
from training.data.examples import Example, Examples
from training.data.pixels import stack
from training.data.reading import Damage, size_text
from training.errors import DataError, TrainingError


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Examples of one size, on the CPU, in as few bytes as they are stored in.

    Attributes:
        images: RGB, 0..255; `training.data.pixels.as_signed` makes floats of them. None where they
            are encoded.
        hints: conditions, RGB, 0..255; `training.data.pixels.as_unit` makes floats of them.
        captions: one text a sample; "" where it was dropped.
        keys: the samples' keys in the dataset.
        indices: the samples' global indices.
        moments: in the images' place, mean and log-variance of their latents, as they are stored.
        text: embeddings of the captions, likewise; None leaves them to the text encoder.
        pooled: their second embeddings, where the base has such.
        sizes: of each picture, see `training.data.micro_conditions`.
        passed_over: damaged samples in whose place others are shown, each at most once.
    """

    images: UInt8[torch.Tensor, "b 3 h w"] | None
    hints: UInt8[torch.Tensor, "b 3 h w"]
    captions: list[str]
    keys: list[str]
    indices: list[int]
    moments: Float[torch.Tensor, "b c2 y x"] | None
    text: Float[torch.Tensor, "b tokens width"] | None
    pooled: Float[torch.Tensor, "b pooled"] | None
    sizes: Int64[torch.Tensor, "b 6"]
    passed_over: list[Damage]

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory, from which a GPU copies; torch's loader asks."""
        names = ("images", "hints", "moments", "text", "pooled", "sizes")
        tensors = {name: getattr(self, name) for name in names}
        return replace(
            self, **{name: t.pin_memory() for name, t in tensors.items() if t is not None}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What a worker sends in place of a batch, as torch would bury the words in a traceback.

    Attributes:
        error: for the user.
    """

    error: CatalogError | TrainingError


def collate(examples: Sequence[Example]) -> Batch:
    """Stack examples into a batch.

    Raises:
        DataError: the examples have more than one size.
    """
    sizes = sorted({size_text(example.hint) for example in examples})
    if len(sizes) > 1:
        raise DataError(
            f"a batch mixes the sizes {', '.join(sizes)}; rebuild the dataset with one size, "
            "train with aspect_buckets, or with batch_size 1"
        )
    encoded = [example.encoded for example in examples if example.encoded is not None]
    return Batch(
        images=None if encoded else stack([one.image for one in examples if one.image is not None]),
        hints=stack([example.hint for example in examples]),
        captions=[example.caption for example in examples],
        keys=[example.key for example in examples],
        indices=[example.index for example in examples],
        moments=_stacked([one.moments for one in encoded]),
        text=_stacked([one.text for one in encoded if one.text is not None]),
        pooled=_stacked([one.pooled for one in encoded if one.pooled is not None]),
        sizes=torch.tensor([example.sizes for example in examples]),
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


class _Batches(Dataset[Batch | Failure]):
    """The indices of a batch -> the batch."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples

    def __getitem__(self, indices: list[int]) -> Batch | Failure:
        try:
            return collate(self._examples.read_all(indices))
        except (CatalogError, TrainingError) as error:
            return Failure(error=error)


def load_batches(
    examples: Examples, indices: IndexBatches, *, workers: int, pin_memory: bool = False
) -> Iterator[Batch]:
    """Yield the batches of `indices` in order.

    Args:
        examples: what the indices stand for.
        indices: the batches of this process.
        workers: processes that read; 0 reads in this one.
        pin_memory: whether to put the batches into page-locked memory, for a CUDA device.

    Raises:
        DataError: a batch has more than one size, or what it should show is damaged or cannot be
            augmented as asked for.
        DataUnavailable: the storage did not give a sample, after all tries.
    """
    batches = DataLoader(
        _Batches(examples),
        sampler=indices,  # one element a batch, which torch need not gather
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=pin_memory,
    )
    for batch in batches:
        if isinstance(batch, Failure):
            raise batch.error
        yield batch


def _stacked(arrays: Sequence[np.ndarray]) -> torch.Tensor | None:
    return torch.from_numpy(np.stack(arrays)) if arrays else None


def _as_it_is(batch: Any) -> Any:
    return batch
