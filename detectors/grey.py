"""Grey: the picture without its colours, of which a ControlNet makes a coloured one."""

from typing import Any, Literal

import cv2
import numpy as np

from detectors.base import Annotation, ConditionName, Image, Result, Spec


class GreySpec(Spec):
    """Nothing to choose: luma by ITU-R BT.601, as JPEG and OpenCV have it."""

    detector: Literal["grey"] = "grey"
    condition: ConditionName = "grey"

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return the luma (h, w), 0..255."""
        luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        return Annotation(map=np.asarray(luma, np.uint8), parameters={})
