"""Straight lines by OpenCV's classical detector: no paper's condition, and no weights."""

from typing import Any, Literal

import cv2
import numpy as np
from pydantic import Field

from detectors.base import ConditionName, Image, Result
from detectors.lines import LinesSpec

_REFERENCE_SIDE = 512  # pixels; lengths in the spec are meant at this short side


class LsdSpec(LinesSpec):
    """LSD (von Gioi et al., 2010) on the grey image; a stand-in where M-LSD's weights are not had.

    It finds every straight edge, M-LSD those that outline things: short ones are left out.
    """

    detector: Literal["lsd"] = "lsd"
    condition: ConditionName = "lsd"
    min_length: float = Field(
        20, ge=0, description="of a line; pixels at a short side of 512, scales with the image"
    )

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return a map (h, w) of 0 and 255, with every line as x1, y1, x2, y2; pixels."""
        shape = image.shape[:2]
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        segments = cv2.createLineSegmentDetector().detect(grey)[0]
        lines = np.zeros((0, 4)) if segments is None else segments.reshape(-1, 4).astype(np.float64)
        length = np.hypot(lines[:, 2] - lines[:, 0], lines[:, 3] - lines[:, 1])
        lines = lines[length >= self.min_length * min(shape) / _REFERENCE_SIDE]
        return self.drawn(lines, shape, np.round(lines, 1).tolist())
