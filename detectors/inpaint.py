"""Inpainting: the picture with holes in it, of free-form strokes and of boxes.

The strokes are random walks of a brush, as Yu et al. draw them (Free-Form Image Inpainting with
Gated Convolution, 2019, section 3.2); sizes are shares of the picture's short side here.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from jaxtyping import Bool
from pydantic import AfterValidator, Field

from detectors.base import Annotation, ConditionName, Image, Result, Spec
from detectors.ranges import IntRange, draw_float, draw_int, ordered

_Level = Annotated[int, Field(ge=0, le=255)]
_Share = Annotated[float, Field(gt=0, le=1)]
_Shares = _Share | Annotated[tuple[_Share, _Share], AfterValidator(ordered)]

_TURN = math.pi / 3  # a brush turns by less than this between two points


class InpaintSpec(Spec):
    """How the holes are drawn; a number fixes a value, a pair is drawn from uniformly."""

    detector: Literal["inpaint"] = "inpaint"
    condition: ConditionName = "inpaint"
    strokes: IntRange = Field((1, 4), description="free-form holes")
    points: IntRange = Field((4, 12), description="of a stroke, at which its brush turns")
    step: _Shares = Field((0.05, 0.25), description="between two points; of the short side")
    width: _Shares = Field((0.03, 0.12), description="of a stroke; of the short side")
    boxes: IntRange = Field((0, 2), description="rectangular holes")
    side: _Shares = Field((0.1, 0.4), description="of a box, each; of the picture's own side")
    fill: tuple[_Level, _Level, _Level] = Field(
        (0, 0, 0), description="colour of the holes, RGB; what marks them is that they are flat"
    )

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return the picture (h, w, 3) with its holes.

        Its parameters: ``strokes``, each with ``width`` and ``points`` (x, y) in pixels, ``boxes``
        (left, top, width, height), and ``masked``, the holes' share of the pixels.
        """
        height, width = image.shape[:2]
        strokes = [
            self._stroke(width, height, generator) for _ in range(draw_int(self.strokes, generator))
        ]
        boxes = [
            self._box(width, height, generator) for _ in range(draw_int(self.boxes, generator))
        ]
        drawn = {"strokes": strokes, "boxes": boxes}
        hole = holes(drawn, height=height, width=width)
        pierced = np.where(hole[..., None], np.array(self.fill, np.uint8), image)
        share = round(float(hole.mean()), 6)
        return Annotation(map=np.ascontiguousarray(pierced), parameters={**drawn, "masked": share})

    def _stroke(self, width: int, height: int, generator: np.random.Generator) -> dict[str, Any]:
        short = min(width, height)
        x, y = float(generator.uniform(0, width)), float(generator.uniform(0, height))
        heading = float(generator.uniform(0, 2 * math.pi))
        points = [[int(x), int(y)]]
        for _ in range(max(1, draw_int(self.points, generator)) - 1):
            heading += float(generator.uniform(-_TURN, _TURN))
            length = draw_float(self.step, generator) * short
            straight = x + length * math.cos(heading), y + length * math.sin(heading)
            x, y = min(max(straight[0], 0), width - 1), min(max(straight[1], 0), height - 1)
            if (x, y) != straight:  # back from the border
                heading += math.pi
            points.append([int(x), int(y)])
        return {"width": max(1, round(draw_float(self.width, generator) * short)), "points": points}

    def _box(self, width: int, height: int, generator: np.random.Generator) -> list[int]:
        wide = max(1, round(draw_float(self.side, generator) * width))
        high = max(1, round(draw_float(self.side, generator) * height))
        left = int(generator.integers(width - wide, endpoint=True))
        top = int(generator.integers(height - high, endpoint=True))
        return [left, top, wide, high]


def holes(drawn: Mapping[str, Any], *, height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """Return where the holes are that a map's parameters tell of."""
    mask = np.zeros((height, width), np.uint8)
    for stroke in drawn["strokes"]:
        points = np.array(stroke["points"], np.int32)
        cv2.polylines(mask, [points], isClosed=False, color=1, thickness=stroke["width"])
        for x, y in stroke["points"]:  # round ends and corners
            cv2.circle(mask, (x, y), stroke["width"] // 2, 1, thickness=-1)
    for left, top, wide, high in drawn["boxes"]:
        mask[top : top + high, left : left + wide] = 1
    return mask.astype(bool)
