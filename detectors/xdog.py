"""Line art by an extended difference of Gaussians (Winnemoeller et al., 2012): needs no network."""

from typing import Any, Literal

import cv2
import numpy as np
from pydantic import Field

from detectors.base import Annotation, ConditionName, Image, Result, Spec
from detectors.ranges import FloatRange, draw_float

_RATIO = 1.6  # of the two Gaussians' widths, which makes their difference a Laplacian's


class XdogSpec(Spec):
    """The filter in the authors' second form: sharpened luma, thresholded by a soft step."""

    detector: Literal["xdog"] = "xdog"
    condition: ConditionName = "xdog"
    sigma: FloatRange = Field(
        (0.6, 1.4), description="of the narrower Gaussian, so of the lines; pixels, drawn uniformly"
    )
    sharpness: float = Field(20.0, ge=0, le=1000, description="p: how much of the difference")
    level: float = Field(0.5, ge=0, le=1, description="epsilon: luma from which a pixel is paper")
    steepness: float = Field(10.0, gt=0, le=1000, description="phi: of the step below that")

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return white lines on black (h, w), with ``sigma`` as drawn."""
        sigma = max(draw_float(self.sigma, generator), 0.1)
        luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        narrow = cv2.GaussianBlur(luma, (0, 0), sigma)
        wide = cv2.GaussianBlur(luma, (0, 0), sigma * _RATIO)
        sharpened = (1 + self.sharpness) * narrow - self.sharpness * wide
        ink = -np.tanh(self.steepness * np.minimum(sharpened - self.level, 0))
        lines = np.rint(255 * ink).astype(np.uint8)
        return Annotation(map=lines, parameters={"sigma": sigma})
