"""The keypoint rule, and people drawn as the reference draws them."""

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.base import Annotation, Refusal
from detectors.keypoints import COCO17, OPENPOSE18, Person, PoseSpec, needed, to_openpose18
from detectors.openpose import OpenposeLightSpec, OpenposeSpec
from detectors.skeleton import COLOURS, Rendering, draw_people

IMAGE = np.zeros((256, 256, 3), np.uint8)


def person(found: int, *, joints: int = 18, score: float = 1.0, seed: int = 0) -> Person:
    """Return a person with this many joints at random places."""
    draw = np.random.default_rng(seed)
    keypoints = np.column_stack([draw.uniform(20, 236, (joints, 2)), draw.uniform(0, 1, joints)])
    keypoints[draw.permutation(joints)[found:]] = np.nan
    return Person(keypoints=keypoints, score=score)


def judge(found: Sequence[Person], **fields: Any) -> Annotation | Refusal:
    return PoseSpec(condition="pose", **fields).annotate(IMAGE, found, np.random.default_rng(0))


@pytest.mark.parametrize(("joints", "least"), [(18, 6), (17, 6), (133, 40)])
def test_30_percent_of_the_body(joints: int, least: int) -> None:
    assert needed(0.30, joints) == least


@given(st.integers(1, 200), st.integers(1, 200))
def test_an_exact_share_is_enough(found: int, joints: int) -> None:
    found = min(found, joints)
    assert needed(found / joints, joints) == found


@pytest.mark.parametrize("joints", [18, 17])
def test_five_joints_are_refused_and_six_kept(joints: int) -> None:
    kept = judge([person(6, joints=joints)])
    assert isinstance(kept, Annotation)
    refused = judge([person(5, joints=joints)])
    assert isinstance(refused, Refusal)
    assert (refused.rule, refused.threshold) == ("keypoints", 0.30)
    assert refused.value == round(5 / joints, 4)


@pytest.mark.parametrize(("whose", "kept"), [("any", True), ("best", False), ("every", False)])
def test_whose_joints_decide(whose: str, kept: bool) -> None:
    people = [person(18, score=0.5), person(3, score=0.9, seed=1)]
    assert isinstance(judge(people, people=whose), Annotation) == kept
    assert isinstance(judge(people[:1], people=whose), Annotation)


def test_nobody_is_refused_with_zero() -> None:
    refused = judge([])
    assert refused == Refusal(
        rule="keypoints", value=0.0, threshold=0.3, parameters={"people": [], "fractions": []}
    )


def test_the_people_are_kept_either_way_and_the_rule_can_be_asked_again() -> None:
    people = [person(5), person(3, seed=2)]
    refused, kept = judge(people), judge(people, fraction=0.25)
    assert isinstance(refused, Refusal)
    assert isinstance(kept, Annotation)
    assert refused.parameters == kept.parameters
    assert kept.parameters["fractions"] == [round(5 / 18, 4), round(3 / 18, 4)]
    found = [[one for one in each["keypoints"] if one] for each in kept.parameters["people"]]
    assert [len(joints) for joints in found] == [5, 3]
    again = next(one for one in kept.parameters["people"][0]["keypoints"] if one)
    first = people[0].keypoints[np.isfinite(people[0].keypoints[:, 0])][0]
    assert np.abs(np.array(again) - first).max() < 1e-3


def test_thresholds_share_a_network_and_specs_travel() -> None:
    strict, loose = OpenposeSpec(fraction=0.8), OpenposeSpec(condition="loose", fraction=0.1)
    assert strict.network == loose.network != OpenposeLightSpec().network
    assert pickle.loads(pickle.dumps(strict)) == strict
    with pytest.raises(ValueError, match="validation error"):
        OpenposeSpec(fraction=1.1)


def test_cocos_joints_become_openposes() -> None:
    coco = np.column_stack([np.arange(17), np.arange(17) * 2, np.full(17, 0.5)]).astype(float)
    coco[COCO17.index("left_ear")] = np.nan
    made = to_openpose18(coco)
    for name in COCO17:
        at, from_ = OPENPOSE18.index(name), COCO17.index(name)
        assert np.array_equal(made[at], coco[from_], equal_nan=True)
    shoulders = [COCO17.index("left_shoulder"), COCO17.index("right_shoulder")]
    assert made[1].tolist() == [*coco[shoulders, :2].mean(0), 0.5]
    coco[shoulders[0]] = np.nan
    assert np.isnan(to_openpose18(coco)[1]).all()


@pytest.mark.usefixtures("controlnet_aux_quiet")
def test_the_newer_rendering_is_the_references() -> None:
    from controlnet_aux.open_pose.body import Keypoint
    from controlnet_aux.open_pose.util import draw_bodypose

    people = [person(18, seed=3), person(11, seed=4), person(2, seed=5)]
    rounded = [np.floor(one.keypoints) for one in people]
    canvas = np.zeros((256, 256, 3), np.uint8)
    for body in rounded:
        joints = [Keypoint(x / 256, y / 256) if np.isfinite(x) else None for x, y, _ in body]
        draw_bodypose(canvas, joints)
    ours = draw_people(rounded, (256, 256), "v1.1")
    assert canvas.any()
    assert (ours == canvas).all()


def test_colours_are_rgb_from_red_to_violet() -> None:
    nose_and_neck = np.full((18, 3), np.nan)
    nose_and_neck[0], nose_and_neck[1] = (10, 10, 1), (60, 60, 1)
    drawn = draw_people([nose_and_neck], (80, 80), "v1.1")
    assert drawn[10, 10].tolist() == [255, 0, 0]
    assert drawn[60, 60].tolist() == [255, 85, 0]
    assert drawn[35, 35].tolist() == [int(0.6 * level) for level in COLOURS[12]]
    assert len(set(COLOURS)) == 18


def test_the_older_rendering_blends_limbs_over_joints() -> None:
    body = np.full((18, 3), np.nan)
    body[1], body[2] = (10, 40, 1), (70, 40, 1)
    drawn = draw_people([body], (80, 80), "v1.0")
    limb = np.array(COLOURS[0])
    assert np.abs(drawn[40, 40] - 0.6 * limb).max() <= 1
    inside = 0.4 * np.array(COLOURS[1]) + 0.6 * limb
    assert np.abs(drawn[40, 12] - inside).max() <= 1


@pytest.mark.parametrize(("rendering", "on_top"), [("v1.0", 17), ("v1.1", 0)])
def test_where_people_meet_the_older_rendering_draws_joint_by_joint(
    rendering: Rendering, on_top: int
) -> None:
    """v1.0 draws all noses, then all necks, ...; v1.1 draws one person after the other."""
    near, far = np.full((18, 3), np.nan), np.full((18, 3), np.nan)
    far[17] = near[0] = (30, 30, 1)  # the later person's nose lies on the first one's ear
    drawn = draw_people([far, near], (60, 60), rendering)
    assert drawn[30, 30].tolist() == list(COLOURS[on_top])
