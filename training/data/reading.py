"""From a row to its pixels: of the row, or of the place.

A row whose stored bytes are no longer what was committed, or are no pair of pictures that can be
trained on, is damaged: `DamagedSample`, and another is shown in its place. A disk, a mount, a
network or a bucket that does not answer says nothing of the row: it is asked again after growing
pauses, and then the run ends, to go on later from its checkpoint.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from catalog.dataset.latents import Latents, image_name, pooled_name, text_name
from catalog.errors import CorruptSampleError, DatasetError, ImageError, StorageUnavailable
from catalog.images import decode_image
from catalog.sample import Sample
from training.data.augment import Pixels
from training.data.view import SampleView
from training.errors import DamagedSample, DataError, DataUnavailable

T = TypeVar("T")

PAUSES = (1.0, 4.0, 16.0, 64.0)
"""Seconds before each further try to read what the storage did not give."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A damaged sample that was passed over.

    Attributes:
        key: the sample's key in the dataset.
        row: its place in the view that is trained on.
        error: what is wrong with it.
    """

    key: str
    row: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """What the base's locked networks made of a sample, ahead of training.

    Attributes:
        moments: mean and log-variance of the latent, stacked, as they are stored.
        text: embedding of the caption that is shown; None where captions were left out.
        pooled: its second embedding, where the base has one.
    """

    moments: Float[np.ndarray, "c2 y x"]
    text: Float[np.ndarray, "tokens width"] | None
    pooled: Float[np.ndarray, " pooled"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A sample and its pixels.

    Attributes:
        sample: as it is stored.
        image: RGB; None where it is encoded.
        hint: the condition, RGB, of the image's height and width.
        encoded: in the image's place; None where there are no latents.
    """

    sample: Sample
    image: Pixels | None
    hint: Pixels
    encoded: Encoded | None = None


class Reader:
    """Reads the rows of a view for one condition; picklable where the view is.

    Args:
        view: the rows.
        condition: which of the view's conditions is the hint.
        multiple: of pixels, that height and width must be; 1 for any size.
        latents: of all rows, in place of their images; None reads those.
    """

    def __init__(
        self, view: SampleView, condition: str, *, multiple: int, latents: Latents | None = None
    ) -> None:
        self._view = view
        self._condition = condition
        self._multiple = multiple
        self._latents = latents

    def read(self, row: int, *, mirrored: bool = False, dropped: bool = False) -> Pair:
        """Return the pair that a row holds.

        Args:
            row: its place in the view.
            mirrored: whether the latent of the mirrored image is wanted, where there are latents.
            dropped: whether the text of the empty caption is, likewise.

        Raises:
            DamagedSample: the row is damaged, whoever reads it and whenever.
            DataUnavailable: the storage did not give it, after all tries.
        """
        try:
            pair = self._pair(self._twice(partial(self._view.read, row), row))
            if self._latents is None:
                return pair
            return replace(pair, encoded=self._encoded(self._latents, row, pair, mirrored, dropped))
        except (CorruptSampleError, ImageError, DataError, DatasetError) as error:
            raise DamagedSample(f"sample {self._keys[row]}: {error}") from error

    def damage(self, row: int, error: DamagedSample) -> Damage:
        """Return the record of a row that `read` found damaged."""
        return Damage(key=self._keys[row], row=row, error=str(error))

    @cached_property
    def _keys(self) -> list[str]:
        return list(self._view.keys())

    def _encoded(
        self, latents: Latents, row: int, pair: Pair, mirrored: bool, dropped: bool
    ) -> Encoded:
        name = image_name(pair.sample.key, mirrored=mirrored)
        moments = self._twice(partial(latents.array, name), row)
        height, width = pair.hint.shape[:2]
        if (moments.shape[1] * self._multiple, moments.shape[2] * self._multiple) != (
            height,
            width,
        ):
            raise DataError(
                f"its latent is of {moments.shape[2]}x{moments.shape[1]} cells, its "
                f"{self._condition} {size_text(pair.hint)}: run precompute again"
            )
        text = pooled = None
        if latents.identity.text_encoder is not None:
            caption = "" if dropped else pair.sample.caption
            text = self._twice(partial(latents.array, text_name(caption)), row)[0]
            if latents.pooled:
                pooled = self._twice(partial(latents.array, pooled_name(caption)), row)[0, 0]
        return Encoded(moments=moments, text=text, pooled=pooled)

    def _twice(self, read: Callable[[], T], row: int) -> T:
        try:
            return self._patiently(read, row)
        except CorruptSampleError:  # of the place, where the bytes come right the second time
            return self._patiently(read, row)

    def _patiently(self, read: Callable[[], T], row: int) -> T:
        for pause in PAUSES:
            try:
                return read()
            except (OSError, StorageUnavailable) as error:
                _log.warning("%s: trying again in %.0f s", error, pause)
                time.sleep(pause)
        try:
            return read()
        except (OSError, StorageUnavailable) as error:
            raise DataUnavailable(
                f"cannot read sample {self._keys[row]}, tried {len(PAUSES) + 1} times in "
                f"{sum(PAUSES):.0f} s: {error}. Once the storage answers, run the same command "
                "again: the training resumes from its last checkpoint"
            ) from error

    def _pair(self, sample: Sample) -> Pair:
        if self._condition not in sample.conditions:
            raise DataError(f"it has no {self._condition}, which others of its view have")
        image = None if self._latents is not None else decode_image(sample.image)
        hint = decode_image(sample.conditions[self._condition])
        if image is not None and image.shape != hint.shape:
            raise DataError(
                f"image is {size_text(image)} but {self._condition} is {size_text(hint)}; a "
                "condition must have its image's size: rebuild the dataset"
            )
        if hint.shape[0] % self._multiple or hint.shape[1] % self._multiple:
            raise DataError(
                f"image is {size_text(hint)}; height and width must be multiples of "
                f"{self._multiple}: rebuild the dataset with such a resolution"
            )
        return Pair(sample=sample, image=image, hint=hint)


def size_text(pixels: Pixels) -> str:
    """Return the size of a picture in words: width, then height."""
    height, width = pixels.shape[:2]
    return f"{width}x{height}"
