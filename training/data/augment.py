"""Random squares and mirrored samples: what is drawn belongs to the global sample index.

Image and hint are always changed together. A mirrored hint must be the hint of the mirrored image,
which not every condition allows by mirroring its pixels; see `flip_hint`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from detectors.normal import CHANNELS
from training.data.draws import keyed_generator
from training.data.order import Sizes
from training.errors import DataError

Pixels = UInt8[np.ndarray, "h w 3"]

NORMALS = frozenset(("normal", "normal_bae", "normal_labels", "normal_tipsv2"))
"""Detectors whose colours name the directions left or right."""

POSES = frozenset(("openpose", "openpose_light", "openpifpaf", "movenet", "dwpose", "vitpose"))
"""Detectors whose colours name the left and the right limbs."""

_OPPOSITES = 254  # levels of n and -n together: 127.5 + 127.5 n, both rounded down


@dataclass(frozen=True, slots=True, kw_only=True)
class Augment:
    """What is changed in a sample before it is shown; the paper changes nothing.

    Attributes:
        crop: side in pixels of a random square, a multiple of what the base asks for; None for the
            whole image.
        flip: whether every other sample, by chance, is mirrored left to right. Captions stay, also
            where they speak of left and right.
    """

    crop: int | None = None
    flip: bool = False

    def check(self, detector: str | None, *, multiple: int) -> None:
        """Refuse what cannot be done to any sample.

        Args:
            detector: what made the condition, by its name in recipes; None where it is not known.
            multiple: of pixels, that a side must be.

        Raises:
            DataError: the crop is no such multiple, or the condition cannot be flipped.
        """
        if self.crop is not None and (self.crop < 1 or self.crop % multiple):
            raise DataError(f"crop is {self.crop}; it must be a positive multiple of {multiple}")
        if self.flip and detector is None:
            raise DataError(
                "flip needs the name of the detector that made the condition, as not all can be "
                "mirrored: name it, or train without flip"
            )
        if self.flip and detector in POSES:
            raise _no_pose(detector)

    def check_sizes(self, sizes: Sizes | None) -> None:
        """Raise DataError where rows are smaller than the crop; unknown sizes pass."""
        if self.crop is None or sizes is None:
            return
        small = int((sizes < self.crop).any(axis=1).sum())
        if small:
            raise DataError(
                f"{small:,} of {len(sizes):,} rows have no square of {self.crop}: train with a "
                "smaller crop, or on a view without them"
            )

    def apply(
        self,
        image: Pixels,
        hint: Pixels,
        *,
        seed: int,
        index: int,
        detector: str | None,
        parameters: Mapping[str, Any],
    ) -> tuple[Pixels, Pixels]:
        """Return image and hint as global sample `index` shows them.

        Args:
            image: RGB.
            hint: the condition, RGB, of the image's height and width.
            seed: the run's seed.
            index: the global sample index.
            detector: what made the condition; known where `flip` is asked for.
            parameters: what the detector noted of this sample.

        Raises:
            DataError: the image is smaller than the crop, or the hint cannot be flipped.
        """
        square = self.square(image.shape[:2], seed=seed, index=index)
        if square is not None:
            image, hint = image[square], hint[square]
        if self.mirrors(seed, index):
            assert detector is not None, "flip without check"
            image, hint = _mirror(image), flip_hint(detector, hint, parameters)
        return image, hint

    def square(self, size: tuple[int, int], *, seed: int, index: int) -> tuple[slice, slice] | None:
        """Return the rows and columns that are shown; None for all. See `crop_square`."""
        if self.crop is None:
            return None
        return crop_square(size, self.crop, seed=seed, index=index)

    def mirrors(self, seed: int, index: int) -> bool:
        """Say whether the global sample `index` is shown mirrored."""
        return self.flip and flips(seed, index)


def flips(seed: int, index: int) -> bool:
    """Say whether the global sample `index` is mirrored: one in two."""
    return bool(keyed_generator(seed, "flip", index).random() < 0.5)


def crop_square(size: tuple[int, int], side: int, *, seed: int, index: int) -> tuple[slice, slice]:
    """Return the rows and columns of the square that global sample `index` shows.

    Args:
        size: (height, width) of the image in pixels.
        side: of the square, in pixels; every place in the image is equally likely.
        seed: the run's seed.
        index: the global sample index.

    Raises:
        DataError: the image is smaller.
    """
    height, width = size
    if min(size) < side:
        raise DataError(
            f"an image of {width}x{height} has no square of {side}: train with a smaller crop, or "
            "rebuild the dataset with a larger resolution"
        )
    generator = keyed_generator(seed, "crop", index)
    top, left = (int(generator.integers(length - side + 1)) for length in size)
    return slice(top, top + side), slice(left, left + side)


def flip_hint(detector: str, hint: Pixels, parameters: Mapping[str, Any]) -> Pixels:
    """Return the hint of the mirrored image.

    Edges, lines, depth and classes are mirrored. A normal's left or right is negated, too, in the
    channel that the sample's convention gives it; as levels are rounded down, v becomes 254 - v,
    and the one level without a partner, 255, becomes 0 like 254.

    Args:
        detector: what made the hint, by its name in recipes.
        hint: the condition, RGB.
        parameters: what the detector noted of this sample: of normals, their ``convention``.

    Raises:
        DataError: the hint shows a pose, or normals of an unknown convention.
    """
    if detector in POSES:
        raise _no_pose(detector)
    flipped = _mirror(hint)
    if detector in NORMALS:
        channel = _sideways(parameters.get("convention"))
        flipped[:, :, channel] = _OPPOSITES - flipped[:, :, channel].clip(max=_OPPOSITES)
    return flipped


def _sideways(convention: Any) -> int:
    """Return the channel of a convention's left or right."""
    if convention not in CHANNELS:
        raise DataError(
            f"a normal map can be flipped where its sample tells the convention, one of "
            f"{', '.join(CHANNELS)}; this one tells {convention!r}: train without flip"
        )
    return next(at for at, name in enumerate(CHANNELS[convention]) if name in ("left", "right"))


def _mirror(pixels: Pixels) -> Pixels:
    return pixels[:, ::-1].copy()


def _no_pose(detector: str | None) -> DataError:
    return DataError(
        f"a pose by {detector} cannot be flipped, as the drawn skeleton's colours tell left from "
        "right: train without flip"
    )
