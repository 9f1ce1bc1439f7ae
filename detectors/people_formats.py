"""People in the formats that other tools read: OpenPose's and COCO's.

Sources: OpenPose's doc/02_output.md; ControlNet's editors add the canvas, under the names of
controlnet_aux. COCO's keypoint annotations, and COCO-WholeBody's names for feet, face and hands.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from detectors.dwpose import BODY, FACE, FEET, HANDS
from detectors.keypoints import COCO17, OPENPOSE18, Person, to_openpose18

Points = Float64[np.ndarray, "n 3"]

_WHOLE = 133
_SEEN = 2  # COCO's word for a keypoint that is visible
_BONES = (
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9),
    (8, 10), (9, 11), (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip

PERSON = {
    "id": 1,
    "name": "person",
    "supercategory": "person",
    "keypoints": list(COCO17),
    "skeleton": [list(bone) for bone in _BONES],
}
"""COCO's category of people; its skeleton counts joints from 1."""


def openpose_json(people: Sequence[Person], *, height: int, width: int) -> dict[str, Any]:
    """Return people as OpenPose writes them, 18 joints each; pixels, 0, 0, 0 where not found."""
    return {
        "version": 1.3,
        "people": [_openpose_person(person.keypoints) for person in people],
        "canvas_height": height,
        "canvas_width": width,
    }


def _openpose_person(keypoints: Points) -> dict[str, Any]:
    whole = len(keypoints) == _WHOLE
    parts = {"pose": to_openpose18(keypoints[BODY] if whole else keypoints)}
    if whole:
        left, right = np.split(keypoints[HANDS], 2)
        parts |= {"face": keypoints[FACE], "hand_left": left, "hand_right": right}
    flat = {f"{name}_keypoints_2d": _flat(points) for name, points in parts.items()}
    none: dict[str, Any] = {
        f"{name}_keypoints_2d": [] for name in ("face", "hand_left", "hand_right")
    }
    return {"person_id": [-1], **none, **flat}


def coco_annotation(person: Person) -> dict[str, Any]:
    """Return one person as COCO annotates it, without its ids.

    The box is that of the keypoints that were found, and so is the area.
    """
    keypoints = person.keypoints
    whole = len(keypoints) == _WHOLE
    body = keypoints[BODY] if whole else _coco17(keypoints)
    seen = np.isfinite(body[:, 0])
    flags = np.where(seen, _SEEN, 0)
    found = keypoints[np.isfinite(keypoints[:, 0]), :2]
    left, top = found.min(0)
    wide, high = found.max(0) - (left, top)
    made: dict[str, Any] = {
        "category_id": PERSON["id"],
        "keypoints": _flat(np.column_stack([body[:, :2], flags])),
        "num_keypoints": int(seen.sum()),
        "bbox": [round(float(value), 3) for value in (left, top, wide, high)],
        "area": round(float(wide * high), 3),
        "iscrowd": 0,
        "score": round(person.score, 4),
    }
    if whole:
        hands = np.split(keypoints[HANDS], 2)
        made |= {"foot_kpts": _flat(keypoints[FEET]), "face_kpts": _flat(keypoints[FACE])}
        made |= {"lefthand_kpts": _flat(hands[0]), "righthand_kpts": _flat(hands[1])}
    return made


def _coco17(keypoints: Points) -> Points:
    if len(keypoints) == len(COCO17):
        return keypoints
    return keypoints[[OPENPOSE18.index(name) for name in COCO17]]


def _flat(points: Points) -> list[float]:
    known = np.where(np.isfinite(points[:, :1]), points, 0.0)
    return [round(float(value), 3) for value in known.ravel()]
