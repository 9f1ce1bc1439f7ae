"""Canny edges with random thresholds (paper, section 3.5, "Canny Edge")."""

from typing import Annotated, Any, Literal

import cv2
import numpy as np
from jaxtyping import UInt8
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
        """Return a map (h, w) of 0 and 255, with ``low`` and ``high`` as drawn."""
        low = draw_int(self.low, generator)
        high = low + draw_int(self.gap, generator)
        return Annotation(map=_canny(image, low, high), parameters={"low": low, "high": high})


def _canny(image: Image, low: int, high: int) -> UInt8[np.ndarray, "h w"]:
    """Return ``cv2.Canny(image, low, high)`` of an RGB image, in half the time.

    At each pixel it takes the gradient of the channel in which that is strongest, of equal ones the
    first. OpenCV looks for it a pixel at a time; here it is found by planes.
    """
    strongest: Any = None
    for plane in cv2.split(image):
        across, down = cv2.spatialGradient(plane, ksize=3, borderType=cv2.BORDER_REPLICATE)
        norm = np.abs(across) + np.abs(down)
        if strongest is None:
            strongest, dx, dy = norm, across, down
            continue
        stronger = cv2.compare(norm, strongest, cv2.CMP_GT)
        cv2.copyTo(across, stronger, dx)
        cv2.copyTo(down, stronger, dy)
        cv2.max(norm, strongest, strongest)
    return np.asarray(cv2.Canny(dx, dy, low, high), dtype=np.uint8)
