"""Tile: the picture without its fine detail, of which a ControlNet makes a detailed one.

As ControlNet 1.1's tile and the "low resolution" of union ControlNets: scaled down and up again.
"""

import math
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from pydantic import AfterValidator, Field

from detectors.base import Annotation, ConditionName, Image, Result, Spec
from detectors.ranges import draw_float, ordered

_Factor = Annotated[float, Field(ge=1, le=64)]
Factor = _Factor | Annotated[tuple[_Factor, _Factor], AfterValidator(ordered)]


class TileSpec(Spec):
    """By how much the picture loses; a number fixes it, of a pair its logarithm is uniform."""

    detector: Literal["tile"] = "tile"
    condition: ConditionName = "tile"
    factor: Factor = Field((2.0, 16.0), description="of both sides; 1 loses nothing")

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return the picture (h, w, 3), scaled down by area and up by a cubic, with ``factor``."""
        factor = 2 ** draw_float(_exponents(self.factor), generator)
        return Annotation(map=shrink_and_grow(image, factor), parameters={"factor": factor})


def _exponents(factor: Factor) -> float | tuple[float, float]:
    if isinstance(factor, tuple):
        return math.log2(factor[0]), math.log2(factor[1])
    return math.log2(factor)


def shrink_and_grow(image: Image, factor: float) -> Image:
    """Return an image of the same size with `factor` times fewer pixels a side in it."""
    height, width = image.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    shrunk = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
