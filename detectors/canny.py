"""Canny edges with random thresholds (paper, section 3.5, "Canny Edge")."""

from collections.abc import Sequence
from typing import Annotated, Literal

import cv2
import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from detectors.base import Annotation, Image, Result


def _ordered(bounds: tuple[int, int]) -> tuple[int, int]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"range {list(bounds)} runs backwards; write [smallest, largest]")
    return bounds


_Level = Annotated[int, Field(ge=0, le=2040)]  # a 3x3 Sobel of 8-bit pixels reaches 2 * 4 * 255
Range = _Level | Annotated[tuple[_Level, _Level], AfterValidator(_ordered)]


class CannySpec(BaseModel):
    """Thresholds of the hysteresis, in units of the L1 norm of 8-bit pixels' 3x3 Sobel gradient.

    The paper does not publish its ranges; the defaults are centred on OpenCV's customary 100 and
    200. A number fixes a threshold, a pair [smallest, largest] is drawn from uniformly, both ends
    included.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    detector: Literal["canny"] = "canny"
    condition: str = Field("canny", pattern=r"^[a-z][a-z0-9_]*$", max_length=32)
    low: Range = Field((50, 150), description="threshold below which no edge goes on")
    gap: Range = Field(
        (50, 150), description="how far the upper threshold lies above the lower one"
    )

    def load(self, device: str) -> "Canny":
        """Return the detector; Canny runs on the CPU whatever the device."""
        return Canny(self)


class Canny:
    """cv2.Canny on the RGB image: OpenCV takes the strongest channel's gradient at each pixel."""

    def __init__(self, spec: CannySpec) -> None:
        self._spec = spec

    def __call__(
        self, images: Sequence[Image], generators: Sequence[np.random.Generator]
    ) -> list[Result]:
        """Return maps (h, w) of 0 and 255, with ``low`` and ``high`` as drawn."""
        return [self._detect(*pair) for pair in zip(images, generators, strict=True)]

    def _detect(self, image: Image, generator: np.random.Generator) -> Annotation:
        low = _draw(self._spec.low, generator)
        high = low + _draw(self._spec.gap, generator)
        edges = np.asarray(cv2.Canny(image, low, high), dtype=np.uint8)
        return Annotation(map=edges, parameters={"low": low, "high": high})


def _draw(bounds: int | tuple[int, int], generator: np.random.Generator) -> int:
    if isinstance(bounds, int):
        return bounds
    return int(generator.integers(bounds[0], bounds[1], endpoint=True))
