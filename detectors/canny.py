"""Canny edges with random thresholds (paper, section 3.5, "Canny Edge")."""

from typing import Annotated, Any, Literal

import cv2
import numpy as np
from pydantic import AfterValidator, Field

from detectors.base import Annotation, ConditionName, Image, Result, Spec
from detectors.ranges import draw_int, ordered

_Level = Annotated[int, Field(ge=0, le=2040)]  # a 3x3 Sobel of 8-bit pixels reaches 2 * 4 * 255
Range = _Level | Annotated[tuple[_Level, _Level], AfterValidator(ordered)]


class CannySpec(Spec):
    """Thresholds of the hysteresis, in units of the L1 norm of 8-bit pixels' 3x3 Sobel gradient.

    The paper does not publish its ranges; the defaults are centred on OpenCV's customary 100 and
    200. A number fixes a threshold, a pair [smallest, largest] is drawn from uniformly, both ends
    included.
    """

    detector: Literal["canny"] = "canny"
    condition: ConditionName = "canny"
    low: Range = Field((50, 150), description="threshold below which no edge goes on")
    gap: Range = Field(
        (50, 150), description="how far the upper threshold lies above the lower one"
    )

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return a map (h, w) of 0 and 255, with ``low`` and ``high`` as drawn.

        On the RGB image: OpenCV takes the strongest channel's gradient at each pixel.
        """
        low = draw_int(self.low, generator)
        high = low + draw_int(self.gap, generator)
        edges = np.asarray(cv2.Canny(image, low, high), dtype=np.uint8)
        return Annotation(map=edges, parameters={"low": low, "high": high})
