"""Straight lines as a map: what the line detectors share."""

from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from detectors.base import Annotation, Refusal, Result


def drawn(
    lines: Float[np.ndarray, "n 4"], shape: tuple[int, int], found: Any, min_lines: int
) -> Result:
    """Draw lines, white and 1 px wide on black; refuse fewer than `min_lines`, rule ``lines``.

    Args:
        lines: x1, y1, x2, y2; pixels, rounded towards zero, as upstream does.
        shape: height and width of the map.
        found: what to keep about the lines; JSON types.
        min_lines: 0 takes an image without lines: its map is black, as it should be.
    """
    parameters = {"lines": found}
    if len(lines) < min_lines:
        return Refusal(rule="lines", value=len(lines), threshold=min_lines, parameters=parameters)
    canvas: UInt8[np.ndarray, "h w"] = np.zeros(shape, np.uint8)
    for x1, y1, x2, y2 in lines.astype(np.int64).tolist():
        cv2.line(canvas, (x1, y1), (x2, y2), 255, 1)
    return Annotation(map=canvas, parameters=parameters)
