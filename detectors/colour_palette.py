"""Colour palette: a mosaic of the picture's colours, as T2I-Adapter's colour condition."""

from typing import Any, Literal

import cv2
import numpy as np
from pydantic import Field

from detectors.base import Annotation, ConditionName, Image, Result, Spec


class ColourPaletteSpec(Spec):
    """How coarse the mosaic is."""

    detector: Literal["colour_palette"] = "colour_palette"
    condition: ConditionName = "colour_palette"
    cell: int = Field(64, ge=2, le=512, description="side of a tile; pixels")

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return tiles (h, w, 3) of the mean colour of what they cover."""
        height, width = image.shape[:2]
        cells = (max(1, round(width / self.cell)), max(1, round(height / self.cell)))
        means = cv2.resize(image, cells, interpolation=cv2.INTER_AREA)
        mosaic = cv2.resize(means, (width, height), interpolation=cv2.INTER_NEAREST)
        return Annotation(map=np.asarray(mosaic, np.uint8), parameters={})
