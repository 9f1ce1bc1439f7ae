"""How alike two condition maps are: the one that was asked for, and the one found in a picture.

Maps are as the dataset stores them; both of a pair have the same height and width.
"""

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool, Float64, Integer, UInt8, UInt16
from scipy.optimize import linear_sum_assignment
from skimage.metrics import structural_similarity

from detectors.keypoints import Person
from detectors.palettes import Palette

Grey: TypeAlias = UInt8[np.ndarray, "h w"]
Picture: TypeAlias = UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]
Colour: TypeAlias = UInt8[np.ndarray, "h w 3"]
Depth: TypeAlias = UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]

STROKE = 127
"""A pixel of a line map above this level, 0..255, belongs to a line."""

PCK_SHARE = 0.1
"""A joint is right within this part of the longer side of its person's box."""

_NO_LENGTH = 0.1  # a colour whose vector is shorter stands for no normal; (127, 127, 127) has 0.007


def line_f1(wanted: Grey, found: Grey, tolerance: int) -> float:
    """Return the F1 score of line pixels that lie within a tolerance of each other, 0..1.

    Precision is the share of the found pixels with a wanted one near them, recall the share of the
    wanted pixels with a found one near. Two maps without a line agree: 1.

    Args:
        wanted: lines above `STROKE` on black.
        found: likewise.
        tolerance: pixels, in each of the eight directions; 0 asks for the same pixels.
    """
    lines, others = wanted > STROKE, found > STROKE
    if not lines.any() and not others.any():
        return 1.0
    precision = _share(others & _grown(lines, tolerance), others)
    recall = _share(lines & _grown(others, tolerance), lines)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def similarity(wanted: Grey, found: Grey) -> float:
    """Return the structural similarity of soft maps, -1..1 (SSIM; Wang et al., 2004).

    With the paper's Gaussian window of 1.5 pixels; sides of at least 11 pixels.
    """
    return float(
        structural_similarity(  # type: ignore[no-untyped-call]
            wanted,
            found,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def depth_rmse(wanted: Depth, found: Depth) -> float:
    """Return the root mean square difference, 0..1, of depths stretched to 0..1 each.

    Relative depth has neither zero nor unit. A flat map counts as 0 throughout.
    """
    difference = _stretched(wanted) - _stretched(found)
    return float(np.sqrt((difference**2).mean()))


def picture_rmse(wanted: Picture, found: Picture) -> float:
    """Return the root mean square difference of pictures, 0..1 of their range."""
    difference = wanted.astype(np.float64) - found
    return float(np.sqrt((difference**2).mean())) / 255


def class_ids(colours: Colour, palette: Palette) -> Integer[np.ndarray, "h w"]:
    """Return the class of each pixel; of classes that share a colour, the first.

    A colour that is not the palette's has no class.
    """
    known = np.flatnonzero(palette.known)
    codes, first = np.unique(_codes(palette.colours[known]), return_index=True)
    wanted = _codes(colours)
    at = np.searchsorted(codes, wanted).clip(max=len(codes) - 1)
    ids: np.ndarray = np.where(codes[at] == wanted, known[first[at]], palette.unlabelled)
    return ids


def mean_iou(wanted: Colour, found: Colour, palette: Palette) -> float:
    """Return intersection over union, 0..1, averaged over the classes of either map.

    Pixels that are wanted to have no class do not count; without any that do, the maps agree: 1.
    """
    target, ids = class_ids(wanted, palette), class_ids(found, palette)
    counts = target != palette.unlabelled
    target, ids = target[counts], ids[counts]
    classes = np.union1d(target, ids)
    classes = classes[classes != palette.unlabelled]
    if not len(classes):
        return 1.0
    overlaps = [
        ((target == one) & (ids == one)).sum() / ((target == one) | (ids == one)).sum()
        for one in classes
    ]
    return float(np.mean(overlaps))


def keypoints_found(
    wanted: Sequence[Person], found: Sequence[Person], share: float = PCK_SHARE
) -> float:
    """Return the share of wanted joints that were found in their place, 0..1 (PCK).

    In its place is a joint within `share` of the longer side of the box around the wanted person's
    joints (Yang and Ramanan, 2013). Each found person stands for one wanted one, matched for the
    most joints; those who are left over cost nothing, unless nobody was wanted: then 0.
    """
    if not wanted:
        return 0.0 if found else 1.0
    joints = sum(person.found for person in wanted)
    if not found or not joints:
        return 0.0 if joints else 1.0
    hits = np.array([[_joints_in_place(one, other, share) for other in found] for one in wanted])
    return float(hits[linear_sum_assignment(-hits)].sum() / joints)


def normal_angle(wanted: Colour, found: Colour) -> float:
    """Return the mean angle between normals, in degrees, 0..180.

    Both maps follow one convention, whichever. Pixels where either has no normal do not count;
    without any that do, the angle is 0.
    """
    one, other = _vectors(wanted), _vectors(found)
    lengths = np.linalg.norm(one, axis=2), np.linalg.norm(other, axis=2)
    measured = (lengths[0] > _NO_LENGTH) & (lengths[1] > _NO_LENGTH)
    if not measured.any():
        return 0.0
    one, other = (
        vectors[measured] / length[measured][:, None]
        for vectors, length in zip((one, other), lengths, strict=True)
    )
    # unlike the arc cosine of the product, exact for small angles
    angles = 2 * np.arctan2(
        np.linalg.norm(one - other, axis=1), np.linalg.norm(one + other, axis=1)
    )
    return float(np.degrees(angles).mean())


def _grown(lines: Bool[np.ndarray, "h w"], by: int) -> Bool[np.ndarray, "h w"]:
    square = np.ones((2 * by + 1, 2 * by + 1), np.uint8)
    return np.asarray(cv2.dilate(lines.astype(np.uint8), square) > 0)


def _share(part: Bool[np.ndarray, "h w"], whole: Bool[np.ndarray, "h w"]) -> float:
    total = int(whole.sum())
    return int(part.sum()) / total if total else 0.0


def _stretched(depth: Depth) -> Float64[np.ndarray, "h w"]:
    above = depth.astype(np.float64) - float(depth.min())
    stretched: np.ndarray = above / max(float(above.max()), 1.0)
    return stretched


def _codes(colours: UInt8[np.ndarray, "*n 3"]) -> Integer[np.ndarray, "*n"]:
    codes: np.ndarray = colours.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    return codes


def _joints_in_place(wanted: Person, found: Person, share: float) -> int:
    if len(wanted.keypoints) != len(found.keypoints):
        raise ValueError(
            f"{len(wanted.keypoints)} joints were wanted, {len(found.keypoints)} found: compare "
            "people of one detector"
        )
    places = wanted.keypoints[:, :2]
    box = np.nanmax(places, axis=0) - np.nanmin(places, axis=0) if wanted.found else np.zeros(2)
    distance = np.linalg.norm(places - found.keypoints[:, :2], axis=1)  # NaN is never near
    return int((distance <= max(1.0, share * float(box.max()))).sum())


def _vectors(colours: Colour) -> Float64[np.ndarray, "h w 3"]:
    vectors: np.ndarray = colours.astype(np.float64) / 127.5 - 1
    return vectors
