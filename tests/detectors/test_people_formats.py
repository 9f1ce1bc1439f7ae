import json

import numpy as np
import pytest

from detectors.keypoints import COCO17, OPENPOSE18, Person, to_openpose18
from detectors.people_formats import PERSON, coco_annotation, openpose_json


def person(joints: int, lost: tuple[int, ...] = ()) -> Person:
    keypoints = np.column_stack(
        [np.arange(joints) + 10.5, 2 * np.arange(joints) + 20.25, np.full(joints, 0.5)]
    )
    keypoints[list(lost)] = np.nan
    return Person(keypoints=keypoints, score=0.75)


@pytest.mark.parametrize("joints", [17, 18, 133])
def test_openpose_has_18_joints_in_its_order(joints: int) -> None:
    one = person(joints, lost=(3,))
    said = openpose_json([one], height=64, width=96)
    assert (said["canvas_height"], said["canvas_width"]) == (64, 96)
    (told,) = json.loads(json.dumps(said))["people"]
    flat = np.array(told["pose_keypoints_2d"]).reshape(18, 3)
    wanted = to_openpose18(one.keypoints[:17] if joints == 133 else one.keypoints)
    assert np.allclose(flat, np.nan_to_num(wanted))
    assert (flat == 0).all(1).sum() == 1
    hands = (told["hand_left_keypoints_2d"], told["hand_right_keypoints_2d"])
    counts = (len(told["face_keypoints_2d"]), *map(len, hands))
    assert counts == ((204, 63, 63) if joints == 133 else (0, 0, 0))
    if joints == 133:  # 17 of the body, 6 of the feet, 68 of the face, the left hand, the right
        firsts = (told["face_keypoints_2d"][0], *(hand[0] for hand in hands))
        assert firsts == (10.5 + 23, 10.5 + 91, 10.5 + 112)


def test_coco_has_17_joints_in_its_order_and_no_neck() -> None:
    one = person(18, lost=(OPENPOSE18.index("left_ankle"), OPENPOSE18.index("neck")))
    told = coco_annotation(one)
    flat = np.array(told["keypoints"]).reshape(17, 3)
    for at, name in enumerate(COCO17):
        place = one.keypoints[OPENPOSE18.index(name)]
        wanted = [0, 0, 0] if name == "left_ankle" else [*place[:2], 2]
        assert flat[at].tolist() == wanted
    assert told["num_keypoints"] == 16
    left, top, wide, high = told["bbox"]
    found = one.keypoints[np.isfinite(one.keypoints[:, 0])]
    assert (left, top) == tuple(found[:, :2].min(0))
    assert (left + wide, top + high) == tuple(found[:, :2].max(0))
    assert told["score"] == 0.75


def test_coco_names_the_parts_of_a_whole_body() -> None:
    told = coco_annotation(person(133))
    lengths = {name: len(told[name]) // 3 for name in told if name.endswith("kpts")}
    assert lengths == {"foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}
    assert told["num_keypoints"] == 17


def test_the_skeleton_joins_left_with_left() -> None:
    names = PERSON["keypoints"]
    for one, other in PERSON["skeleton"]:
        sides = {name.partition("_")[0] for name in (names[one - 1], names[other - 1])}
        crossing = sides == {"left", "right"} and one - 1 not in (5, 6, 11, 12, 1, 2)
        assert not crossing
    assert len(PERSON["skeleton"]) == 19
