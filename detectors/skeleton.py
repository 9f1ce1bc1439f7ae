"""People drawn as coloured skeletons, as ControlNet's pose models were trained to read them."""

import colorsys
import math
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

Rendering = Literal["v1.1", "v1.0"]
Body = Float64[np.ndarray, "18 3"]
Hand = Float64[np.ndarray, "21 3"]
Face = Float64[np.ndarray, "68 3"]
Canvas = UInt8[np.ndarray, "h w 3"]

LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12),
    (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
"""Pairs of OpenPose's joints, in the order in which they are drawn."""

BONES = tuple(
    (0 if place == 0 else 4 * finger + place, 4 * finger + place + 1)
    for finger in range(5)
    for place in range(4)
)
"""Pairs of a hand's 21 keypoints: the wrist, and four of each finger from the thumb on."""

_BONE_COLOURS = tuple(
    tuple(255 * level for level in colorsys.hsv_to_rgb(bone / 20, 1, 1)) for bone in range(20)
)
_HUES = 18
_STICK = 4  # half the width of a limb, and the radius of a joint; pixels at any image size
_LIMB_LEVEL = 0.6  # of a limb's colour in v1.1, and of the limb over what lies under it in v1.0


def draw_people(people: Sequence[Body], size: tuple[int, int], rendering: Rendering) -> Canvas:
    """Draw people on black.

    Args:
        people: x, y in pixels, score; a row a joint, NaN where it was not found.
        size: (height, width) of the canvas in pixels.
        rendering: ``v1.1`` as ControlNet 1.1 and controlnet_aux, ``v1.0`` as the first release.
    """
    canvas = np.zeros((*size, 3), np.uint8)
    if rendering == "v1.1":
        for body in people:
            for limb, colour in zip(LIMBS, COLOURS, strict=False):
                _fill_limb(canvas, body, limb, [int(level * _LIMB_LEVEL) for level in colour])
            _draw_joints(canvas, [body])
        return canvas
    _draw_joints(canvas, people)
    for limb, colour in zip(LIMBS, COLOURS, strict=False):
        for body in people:
            over = canvas.copy()
            if _fill_limb(over, body, limb, colour):
                cv2.addWeighted(canvas, 1 - _LIMB_LEVEL, over, _LIMB_LEVEL, 0, dst=canvas)
    return canvas


def draw_hands(canvas: Canvas, hands: Sequence[Hand]) -> None:
    """Draw hands onto a canvas as ControlNet 1.1 does: fingers in a circle of hues, blue joints."""
    for hand in hands:
        for (one, other), colour in zip(BONES, _BONE_COLOURS, strict=True):
            if np.isfinite(hand[[one, other], 0]).all():
                ends = [(int(x), int(y)) for x, y in hand[[one, other], :2]]
                cv2.line(canvas, ends[0], ends[1], colour, thickness=2)
        _dot(canvas, hand, _STICK, (0, 0, 255))


def draw_faces(canvas: Canvas, faces: Sequence[Face]) -> None:
    """Draw faces onto a canvas as ControlNet 1.1 does: a white dot a keypoint."""
    for face in faces:
        _dot(canvas, face, 3, (255, 255, 255))


def _dot(canvas: Canvas, points: np.ndarray, radius: int, colour: tuple[int, int, int]) -> None:
    for x, y, _ in points[np.isfinite(points[:, 0])]:
        cv2.circle(canvas, (int(x), int(y)), radius, colour, thickness=-1)


def _hue(step: int) -> tuple[int, int, int]:
    """Return one of 18 colours around the circle from red over green and blue; RGB."""
    sixth, rest = divmod(step, 3)
    rising, falling = 85 * rest, 255 - 85 * rest
    return (
        (255, rising, 0), (falling, 255, 0), (0, 255, rising),
        (0, falling, 255), (rising, 0, 255), (255, 0, falling),
    )[sixth]  # fmt: skip


COLOURS = tuple(_hue(step) for step in range(_HUES))
"""RGB of each joint, and of the limb of the same number."""


def _fill_limb(canvas: Canvas, body: Body, limb: tuple[int, int], colour: Sequence[int]) -> bool:
    """Draw one limb as an ellipse; returns whether both of its joints were found."""
    (x1, y1), (x2, y2) = body[limb[0], :2], body[limb[1], :2]
    if not np.isfinite([x1, x2]).all():
        return False
    middle = (int((x1 + x2) / 2), int((y1 + y2) / 2))
    half = int(math.hypot(x1 - x2, y1 - y2) / 2)
    angle = int(math.degrees(math.atan2(y1 - y2, x1 - x2)))
    polygon = cv2.ellipse2Poly(middle, (half, _STICK), angle, 0, 360, 1)
    cv2.fillConvexPoly(canvas, np.array(polygon), list(colour))
    return True


def _draw_joints(canvas: Canvas, people: Sequence[Body]) -> None:
    """Draw the joints of all, those of one kind after the other."""
    for joint, colour in enumerate(COLOURS):
        for x, y, _ in (body[joint] for body in people):
            if np.isfinite(x):
                cv2.circle(canvas, (int(x), int(y)), _STICK, list(colour), thickness=-1)
