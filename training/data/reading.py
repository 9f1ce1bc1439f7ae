"""From a row to its pixels: of the row, or of the place.

A row whose stored bytes are no longer what was committed, or are no pair of pictures that can be
trained on, is damaged: `DamagedSample`, and another is shown in its place. A disk, a mount, a
network or a bucket that does not answer says nothing of the row: it is asked again after growing
pauses, and then the run ends, to go on later from its checkpoint.
"""

import logging
import time
from dataclasses import dataclass
from functools import cached_property

from catalog.errors import CorruptSampleError, ImageError, StorageUnavailable
from catalog.images import decode_image
from catalog.sample import Sample
from training.data.augment import Pixels
from training.data.view import SampleView
from training.errors import DamagedSample, DataError, DataUnavailable

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
class Pair:
    """A sample and its pixels.

    Attributes:
        sample: as it is stored.
        image: RGB.
        hint: the condition, RGB, of the image's height and width.
    """

    sample: Sample
    image: Pixels
    hint: Pixels


class Reader:
    """Reads the rows of a view for one condition; picklable where the view is.

    Args:
        view: the rows.
        condition: which of the view's conditions is the hint.
        multiple: of pixels, that height and width must be; 1 for any size.
    """

    def __init__(self, view: SampleView, condition: str, *, multiple: int) -> None:
        self._view = view
        self._condition = condition
        self._multiple = multiple

    def read(self, row: int) -> Pair:
        """Return the pair that a row holds.

        Raises:
            DamagedSample: the row is damaged, whoever reads it and whenever.
            DataUnavailable: the storage did not give it, after all tries.
        """
        try:
            return self._pair(self._sample(row))
        except (CorruptSampleError, ImageError, DataError) as error:
            raise DamagedSample(f"sample {self._keys[row]}: {error}") from error

    def damage(self, row: int, error: DamagedSample) -> Damage:
        """Return the record of a row that `read` found damaged."""
        return Damage(key=self._keys[row], row=row, error=str(error))

    @cached_property
    def _keys(self) -> list[str]:
        return list(self._view.keys())

    def _sample(self, row: int) -> Sample:
        try:
            return self._patiently(row)
        except CorruptSampleError:  # of the place, where the bytes come right the second time
            return self._patiently(row)

    def _patiently(self, row: int) -> Sample:
        for pause in PAUSES:
            try:
                return self._view.read(row)
            except (OSError, StorageUnavailable) as error:
                _log.warning("%s: trying again in %.0f s", error, pause)
                time.sleep(pause)
        try:
            return self._view.read(row)
        except (OSError, StorageUnavailable) as error:
            raise DataUnavailable(
                f"cannot read sample {self._keys[row]}, tried {len(PAUSES) + 1} times in "
                f"{sum(PAUSES):.0f} s: {error}. Once the storage answers, run the same command "
                "again: the training resumes from its last checkpoint"
            ) from error

    def _pair(self, sample: Sample) -> Pair:
        if self._condition not in sample.conditions:
            raise DataError(f"it has no {self._condition}, which others of its view have")
        image = decode_image(sample.image)
        hint = decode_image(sample.conditions[self._condition])
        if image.shape != hint.shape:
            raise DataError(
                f"image is {size_text(image)} but {self._condition} is {size_text(hint)}; a "
                "condition must have its image's size: rebuild the dataset"
            )
        if image.shape[0] % self._multiple or image.shape[1] % self._multiple:
            raise DataError(
                f"image is {size_text(image)}; height and width must be multiples of "
                f"{self._multiple}: rebuild the dataset with such a resolution"
            )
        return Pair(sample=sample, image=image, hint=hint)


def size_text(pixels: Pixels) -> str:
    """Return the size of a picture in words: width, then height."""
    height, width = pixels.shape[:2]
    return f"{width}x{height}"
