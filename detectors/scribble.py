"""Scribbles synthesised from HED edges (paper, section 3.5, "User Scribbles")."""

from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from pydantic import BaseModel, ConfigDict, Field

from detectors.base import Annotation, ConditionName, Image, Result, Spec
from detectors.hed import HedCheckpoint, HedNetwork
from detectors.ranges import FloatRange, IntRange, draw_float, draw_int
from detectors.soft_edges import to_grey

Grey: TypeAlias = UInt8[np.ndarray, "h w"]
Mask: TypeAlias = Bool[np.ndarray, "h w"]

Morphology = Literal["dilate", "erode", "open", "close"]

_REFERENCE_SIDE = 512  # pixels; lengths in the spec are meant at this short side
_PAINT_LEVEL = 4  # a blurred 1-px line counts as stroke above this; gives it a width of 4 sigma
_NEIGHBOURS = [  # the pixel with its two neighbours along one of four directions
    np.array(rows, np.uint8)
    for rows in (
        [[0, 0, 0], [1, 1, 1], [0, 0, 0]],
        [[0, 1, 0], [0, 1, 0], [0, 1, 0]],
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0, 0, 1], [0, 1, 0], [1, 0, 0]],
    )
]


class Synthesis(BaseModel):
    """Ranges of the augmentations that the paper names; it published none of their values.

    Lengths are in pixels at a short side of 512 and scale with the image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: IntRange = Field((64, 190), description="level 0..255 above which an edge counts")
    sigma: FloatRange = Field((1.0, 4.0), description="of the blur before and after; pixels")
    nms: float = Field(0.5, ge=0, le=1, description="how often edges are thinned to their ridge")
    morphology: tuple[Morphology, ...] = Field(
        ("dilate", "erode", "open", "close"), description="one of these is drawn; empty: none"
    )
    radius: IntRange = Field((1, 12), description="of the morphology's disk; pixels")
    min_length: float = Field(
        12, ge=0, description="of a stroke, or it is a speck and goes; side of its box; pixels"
    )
    mask_out: FloatRange = Field((0.0, 0.5), description="share of the strokes that is left out")
    max_width: float = Field(24, ge=1, description="a wider blot becomes its outline; pixels")


class ScribbleSpec(Spec):
    """White strokes on black, as a person might draw the edges.

    ``random`` draws every step from the spec's ranges; ``fixed`` is ControlNet's published
    deterministic version, for conditions at sampling time.
    """

    detector: Literal["scribble"] = "scribble"
    condition: ConditionName = "scribble"
    checkpoint: HedCheckpoint = "hed_bsds500"
    mode: Literal["random", "fixed"] = "random"
    synthesis: Synthesis = Synthesis()

    @property
    def version(self) -> int:
        """2: strokes stay whole; what draws nothing at random is as it was."""
        return 2 if self.mode == "random" else 1

    @property
    def network(self) -> HedNetwork:
        """HED; shared with a `HedSpec` of the same checkpoint."""
        return HedNetwork(checkpoint=self.checkpoint)

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return a map (h, w) of 0 and 255, with every drawn value."""
        grey = to_grey(found)
        if self.mode == "fixed":
            return Annotation(map=_white(paint(ridges(grey, 3.0, 127), 3.0)))
        return _synthesise(grey, self.synthesis, generator)


def ridges(grey: Grey, sigma: float, threshold: float) -> Mask:
    """Thin edges: pixels above `threshold` that no neighbour along some direction exceeds.

    Args:
        grey: edges, 0..255.
        sigma: of a Gaussian blur beforehand; pixels.
        threshold: level of the blurred edges, 0..255.
    """
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), sigma)
    kept = smooth > threshold
    highest = np.zeros_like(kept)
    for kernel in _NEIGHBOURS:
        highest |= cv2.dilate(smooth, kernel) == smooth
    return np.asarray(kept & highest)


def paint(lines: Mask, sigma: float) -> Mask:
    """Draw thin lines with a round brush of about 4 sigma pixels."""
    return np.asarray(cv2.GaussianBlur(_white(lines), (0, 0), sigma) > _PAINT_LEVEL)


def limit_width(strokes: Mask, width: float) -> Mask:
    """Hollow out what is wider than `width` pixels; narrower strokes stay as they are."""
    return np.asarray(strokes & (_depth(strokes) <= max(1.0, width / 2)))


def largest(strokes: Mask, most: int) -> Mask:
    """Return the `most` largest connected pieces, by area; all where there are fewer."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(_white(strokes), connectivity=8)
    by_size = 1 + np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable")  # 0 is the ground
    keep = np.zeros(count, bool)
    keep[by_size[:most]] = True
    return np.asarray(keep[labels])


def stroke_width(strokes: Mask) -> float:
    """Return the width of the widest stroke, in pixels: twice its greatest depth, less one."""
    return max(0.0, 2 * float(_depth(strokes).max()) - 1)


def _synthesise(grey: Grey, ranges: Synthesis, generator: np.random.Generator) -> Annotation:
    scale = min(grey.shape) / _REFERENCE_SIDE
    drawn: dict[str, Any] = {
        "threshold": draw_int(ranges.threshold, generator),
        "sigma": round(draw_float(ranges.sigma, generator), 3),
        "nms": bool(generator.random() < ranges.nms),
        "mask_out": round(draw_float(ranges.mask_out, generator), 3),
    }
    if ranges.morphology:
        drawn["morphology"] = ranges.morphology[int(generator.integers(len(ranges.morphology)))]
        drawn["radius"] = draw_int(ranges.radius, generator)
    sigma = drawn["sigma"] * scale
    if drawn["nms"]:
        strokes = ridges(grey, sigma, drawn["threshold"])
    else:
        strokes = np.asarray(cv2.GaussianBlur(grey, (0, 0), sigma) > drawn["threshold"])
    strokes, drawn["strokes"], left = _choose(
        strokes, ranges.min_length * scale, drawn["mask_out"], generator
    )
    if drawn["nms"]:
        strokes = paint(strokes, sigma)
    if ranges.morphology:
        strokes = _morph(strokes, drawn["morphology"], max(1, round(drawn["radius"] * scale)))
    # The holes of a wide blot have outlines too: with them there may be more pieces than strokes.
    strokes = largest(limit_width(strokes, ranges.max_width * scale), left)
    return Annotation(map=_white(strokes), parameters=drawn)


def _choose(
    strokes: Mask, min_length: float, mask_out: float, generator: np.random.Generator
) -> tuple[Mask, int, int]:
    """Leave out specks, and a share of the strokes, rounded down.

    The order of leaving out is drawn even where nothing is left out, so that a draw that follows
    does not depend on `mask_out`.

    Returns:
        The strokes that are left, the number of all, and of those left.
    """
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(_white(strokes), connectivity=8)
    lengths = boxes[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(1)
    long = np.flatnonzero(lengths >= min_length)
    long = long[long > 0]  # 0 is the ground
    order = generator.permutation(long)
    keep = np.zeros(count, bool)
    kept = order[int(mask_out * len(long)) :]
    keep[kept] = True
    return np.asarray(keep[labels]), len(long), len(kept)


def _morph(strokes: Mask, how: Morphology, radius: int) -> Mask:
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    shapes = {
        "dilate": cv2.MORPH_DILATE,
        "erode": cv2.MORPH_ERODE,
        "open": cv2.MORPH_OPEN,
        "close": cv2.MORPH_CLOSE,
    }
    changed = cv2.morphologyEx(_white(strokes), shapes[how], disk) > 0
    if how in ("erode", "open"):  # what is thinner than the disk becomes a line, and stays whole
        return _along(changed, thinned(strokes))
    return _along(changed, strokes)


def thinned(strokes: Mask) -> Mask:
    """Return the middle line of each stroke, about 3 pixels wide, in one piece a stroke."""
    from skimage.morphology import skeletonize  # half a second to import

    if not strokes.any():
        return strokes
    middle = skeletonize(strokes)  # type: ignore[no-untyped-call]
    line = cv2.dilate(_white(middle), np.ones((3, 3), np.uint8)) > 0
    return np.asarray(line & strokes)


def _along(changed: Mask, lines: Mask) -> Mask:
    """Add the lines, and leave out what touches none: no more pieces than lines come out."""
    together = np.asarray(changed | lines)
    count, labels = cv2.connectedComponents(_white(together), connectivity=8)
    keep = np.zeros(count, bool)
    keep[labels[lines]] = True
    return np.asarray(keep[labels])


def _depth(strokes: Mask) -> np.ndarray:
    """Return how far each stroke pixel lies from the ground; pixels, 1 at the rim."""
    if not strokes.any():
        return np.zeros(strokes.shape, np.float32)
    return cv2.distanceTransform(_white(strokes), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _white(mask: Mask) -> Grey:
    return mask.astype(np.uint8) * np.uint8(255)
