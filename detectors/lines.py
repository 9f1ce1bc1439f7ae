"""Straight lines as a map: what the line detectors share."""

from collections.abc import Mapping
from typing import Any, ClassVar

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from pydantic import Field

from detectors.base import Annotation, Refusal, Result, Spec, keep_or_refuse


class LinesSpec(Spec):
    """White lines of 1 px on black."""

    thresholds: ClassVar[frozenset[str]] = frozenset(("min_lines",))

    min_lines: int = Field(
        0, ge=0, description="refuse an image with fewer; ControlNet 1.1 asked for more than 16"
    )

    def drawn(self, lines: Float[np.ndarray, "n 4"], shape: tuple[int, int], found: Any) -> Result:
        """Draw lines; an image without any gives a black map, as it should.

        Args:
            lines: x1, y1, x2, y2; pixels, rounded towards zero, as upstream does.
            shape: height and width of the map.
            found: what to keep about the lines; JSON types.
        """
        canvas: UInt8[np.ndarray, "h w"] = np.zeros(shape, np.uint8)
        for x1, y1, x2, y2 in lines.astype(np.int64).tolist():
            cv2.line(canvas, (x1, y1), (x2, y2), 255, 1)
        return keep_or_refuse(self, Annotation(map=canvas, parameters={"lines": found}))

    def refuse(self, parameters: Mapping[str, Any]) -> Refusal | None:
        """Refuse fewer lines than `min_lines`, rule ``lines``."""
        count = len(parameters["lines"])
        if count >= self.min_lines:
            return None
        return Refusal(rule="lines", value=count, threshold=self.min_lines)
