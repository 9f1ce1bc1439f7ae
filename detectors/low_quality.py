"""Low quality: the picture as a bad copy of it, of which a ControlNet makes a good one.

What restoration networks are trained on, in their order: scaled down and up, noise, JPEG.
"""

from typing import Annotated, Any, Literal

import cv2
import numpy as np
from pydantic import AfterValidator, Field

from detectors.base import Annotation, ConditionName, Image, Result, Spec
from detectors.ranges import FloatRange, draw_float, draw_int, ordered
from detectors.tile import shrink_and_grow

_Quality = Annotated[int, Field(ge=1, le=100)]
_Factor = Annotated[float, Field(ge=1, le=64)]


class LowQualitySpec(Spec):
    """How bad the copy is; a number fixes a value, a pair is drawn from uniformly."""

    detector: Literal["low_quality"] = "low_quality"
    condition: ConditionName = "low_quality"
    factor: _Factor | Annotated[tuple[_Factor, _Factor], AfterValidator(ordered)] = Field(
        (1.0, 4.0), description="by which both sides are scaled down and up again"
    )
    noise: FloatRange = Field((0.0, 20.0), description="standard deviation, of 255")
    quality: _Quality | Annotated[tuple[_Quality, _Quality], AfterValidator(ordered)] = Field(
        (20, 80), description="of the JPEG"
    )

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return the copy (h, w, 3), with ``factor``, ``noise`` and ``quality`` as drawn."""
        factor, noise = draw_float(self.factor, generator), draw_float(self.noise, generator)
        quality = draw_int(self.quality, generator)
        copy = shrink_and_grow(image, factor)
        grains = generator.normal(0, noise, copy.shape)
        copy = np.clip(np.rint(copy + grains), 0, 255).astype(np.uint8)
        encoded = cv2.imencode(".jpg", copy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        assert decoded is not None, "what was just encoded"
        parameters = {"factor": factor, "noise": noise, "quality": quality}
        return Annotation(map=np.ascontiguousarray(decoded[..., ::-1]), parameters=parameters)
