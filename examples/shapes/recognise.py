"""Which coloured shapes a picture holds, found without any network."""

import cv2
import numpy as np
from draw import COLOURS, CORNERS

_GROUND = (39, 41, 59)
"""The middle of the grounds that `draw` draws, RGB."""

_SMALLEST = 60  # pixels: half of the smallest triangle
_ZOOM = 4


def recognise(image: np.ndarray) -> dict[str, str]:
    """Return the shapes of a picture, the kind by the colour.

    A pixel has the colour that it lies nearest to; a colour is there where enough of its pixels
    hang together. Of the triangle, the rectangle and the circle that enclose them most closely, the
    one that they fill best names the kind.

    Args:
        image: RGB uint8 (h, w, 3).
    """
    palette = np.asarray([*COLOURS.values(), _GROUND], float)
    away = np.linalg.norm(image[:, :, None].astype(float) - palette, axis=-1)
    nearest = away.argmin(axis=-1)
    found = {colour: _largest(nearest == at) for at, colour in enumerate(COLOURS)}
    return {colour: _kind(mask) for colour, mask in found.items() if mask.sum() >= _SMALLEST}


def _largest(mask: np.ndarray) -> np.ndarray:
    """Return the largest part of a mask that hangs together, as thin borders around do not."""
    core = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, labels, sizes, _ = cv2.connectedComponentsWithStats(core, connectivity=4)
    areas = sizes[1:, cv2.CC_STAT_AREA]
    if not len(areas):
        return np.zeros_like(mask)
    grown = cv2.dilate((labels == 1 + areas.argmax()).astype(np.uint8), np.ones((3, 3), np.uint8))
    return mask & (grown > 0)


def _kind(mask: np.ndarray) -> str:
    large = cv2.resize(mask.astype(np.uint8) * 255, None, fx=_ZOOM, fy=_ZOOM) > 127
    rows, columns = np.nonzero(large)
    hull = cv2.convexHull(np.stack((columns, rows), axis=1).astype(np.float32))
    (_, (width, height), _) = cv2.minAreaRect(hull)
    enclosing = {
        "triangle": cv2.minEnclosingTriangle(hull)[0],
        "square": width * height,
        "circle": np.pi * cv2.minEnclosingCircle(hull)[1] ** 2,
    }
    return min(CORNERS, key=enclosing.__getitem__)
