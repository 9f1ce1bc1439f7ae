"""What the metrics promise: identity is perfect, tolerances hold, hand-made cases come out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from detectors.keypoints import Person
from detectors.palettes import palette
from training.measure.map_likeness import (
    class_ids,
    depth_rmse,
    keypoints_found,
    line_f1,
    mean_iou,
    normal_angle,
    similarity,
)

EMPTY = np.zeros((32, 32), np.uint8)
FULL = np.full((32, 32), 255, np.uint8)
ADE = palette("ade20k")

lines = arrays.arrays(np.bool_, (16, 16)).map(lambda mask: mask.astype(np.uint8) * 255)
greys = arrays.arrays(np.uint8, (16, 16))
colours = arrays.arrays(np.uint8, (8, 8, 3))


def vertical(column: int) -> np.ndarray:
    drawn = EMPTY.copy()
    drawn[:, column] = 255
    return drawn


def painted(ids: list[list[int]]) -> np.ndarray:
    return ADE.painted(np.array(ids))


def person(*joints: tuple[float, float] | None) -> Person:
    rows = [(np.nan,) * 3 if joint is None else (*joint, 1.0) for joint in joints]
    return Person(keypoints=np.array(rows, np.float64), score=1.0)


@given(one=lines, other=lines, tolerance=st.integers(0, 3))
def test_line_f1_is_symmetric_bounded_and_grows_with_the_tolerance(one, other, tolerance):
    score = line_f1(one, other, tolerance)
    assert 0 <= score <= 1
    assert score == pytest.approx(line_f1(other, one, tolerance))
    assert line_f1(one, one, tolerance) == 1
    assert line_f1(one, other, tolerance + 1) >= score - 1e-12


@pytest.mark.parametrize(
    ("shift", "tolerance", "score"),
    [(0, 0, 1), (1, 0, 0), (1, 1, 1), (2, 1, 0), (2, 2, 1), (3, 2, 0)],
)
def test_line_f1_of_a_shifted_line(shift, tolerance, score):
    assert line_f1(vertical(10), vertical(10 + shift), tolerance) == score


def test_line_f1_where_a_map_is_empty():
    assert line_f1(EMPTY, EMPTY, 1) == 1
    assert line_f1(EMPTY, FULL, 1) == 0
    assert line_f1(FULL, EMPTY, 1) == 0


def test_line_f1_by_hand():
    both = np.maximum(vertical(5), vertical(20))
    assert line_f1(vertical(5), both, 1) == pytest.approx(2 / 3)  # precision 1/2, recall 1
    assert line_f1(vertical(5), vertical(5) // 3, 1) == 0  # grey of 85 is no line


@given(one=greys, other=greys)
def test_similarity_and_depth_are_symmetric_and_bounded(one, other):
    assert similarity(one, one) == pytest.approx(1)
    assert similarity(one, other) == pytest.approx(similarity(other, one))
    assert depth_rmse(one, one) == 0
    assert 0 <= depth_rmse(one, other) == depth_rmse(other, one) <= 1


def test_similarity_falls_with_noise():
    generator = np.random.default_rng(0)
    soft = np.tile(np.linspace(0, 255, 32), (32, 1)).astype(np.uint8)
    scores = []
    for level in (0, 20, 60):
        noisy = soft + generator.normal(0, 1, soft.shape) * level
        scores.append(similarity(soft, noisy.clip(0, 255).astype(np.uint8)))
    assert scores[0] == 1
    assert scores[0] > scores[1] > scores[2]
    assert similarity(EMPTY, FULL) < 0.001


def test_depth_forgets_zero_unit_and_bits():
    ramp = np.tile(np.arange(32, dtype=np.uint8), (32, 1))
    assert depth_rmse(ramp, ramp * 2 + 20) == pytest.approx(0)
    assert depth_rmse(ramp, ramp.astype(np.uint16) * 257) == pytest.approx(0)
    assert depth_rmse(EMPTY, FULL) == 0  # both flat
    halves = EMPTY.copy()
    halves[:, 16:] = 9
    assert depth_rmse(halves, 9 - halves) == 1  # near and far swapped
    assert depth_rmse(halves, EMPTY) == pytest.approx(np.sqrt(0.5))


def test_mean_iou_by_hand():
    wanted = painted([[1, 1], [2, 2]])
    assert mean_iou(wanted, wanted, ADE) == 1
    # class 1: 1 of 2, class 2: 2 of 3
    assert mean_iou(wanted, painted([[1, 2], [2, 2]]), ADE) == pytest.approx((1 / 2 + 2 / 3) / 2)
    # a third class is found: class 1: 1 of 2, class 2: 2 of 2, class 3: 0 of 1
    assert mean_iou(wanted, painted([[1, 3], [2, 2]]), ADE) == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert mean_iou(wanted, painted([[3, 3], [3, 3]]), ADE) == 0
    # a pixel that is wanted to have no class may show anything
    assert mean_iou(painted([[0, 1], [2, 2]]), painted([[3, 1], [2, 2]]), ADE) == 1
    # one that should have a class and shows none is a miss
    assert mean_iou(wanted, painted([[0, 1], [2, 2]]), ADE) == pytest.approx((1 / 2 + 1) / 2)
    assert mean_iou(painted([[0, 0]]), painted([[1, 2]]), ADE) == 1


def test_colours_give_their_class_back():
    ids = np.arange(151).reshape(1, -1)
    back = class_ids(ADE.painted(ids), ADE)
    assert (ADE.painted(back) == ADE.painted(ids)).all()
    assert (back == ids).mean() > 0.99  # two of ADE20K's classes share a colour
    assert class_ids(np.full((1, 1, 3), 1, np.uint8), ADE) == ADE.unlabelled


def test_keypoints_by_hand():
    wanted = person((0, 0), (100, 0), None, (0, 50))  # box 100 wide: 10 pixels are near
    near = person((6, 8), (100, 10), (5, 5), (0, 50))
    assert keypoints_found([wanted], [wanted]) == 1
    assert keypoints_found([wanted], [near]) == 1
    assert keypoints_found([wanted], [person((6, 9), (100, 0), None, None)]) == pytest.approx(1 / 3)
    assert keypoints_found([wanted], []) == 0
    assert keypoints_found([], [wanted]) == 0
    assert keypoints_found([], []) == 1


def test_keypoints_match_people_in_any_order_but_one_to_one():
    left, right = person((0, 0), (20, 0)), person((100, 0), (120, 0))
    assert keypoints_found([left, right], [right, left]) == 1
    assert keypoints_found([left, right], [right]) == 0.5
    assert keypoints_found([left, left], [left]) == 0.5
    assert keypoints_found([left], [right, left]) == 1


def test_keypoints_of_other_skeletons_do_not_compare():
    with pytest.raises(ValueError, match="2 joints were wanted, 1 found"):
        keypoints_found([person((0, 0), (9, 9))], [person((0, 0))])


@given(one=colours, other=colours)
def test_normal_angle_is_symmetric_and_bounded(one, other):
    assert normal_angle(one, one) == 0
    assert 0 <= normal_angle(one, other) <= 180
    assert normal_angle(one, other) == pytest.approx(normal_angle(other, one))


def test_normal_angle_by_hand():
    def plane(*colour: int) -> np.ndarray:
        return np.full((4, 4, 3), colour, np.uint8)

    facing, left = plane(127, 127, 255), plane(255, 127, 127)
    assert normal_angle(facing, left) == pytest.approx(90, abs=0.5)
    assert normal_angle(facing, plane(127, 127, 0)) == pytest.approx(180, abs=1)
    half = facing.copy()
    half[:2] = left[:2]
    assert normal_angle(facing, half) == pytest.approx(45, abs=0.5)
    half[:2] = 127  # no normal there
    assert normal_angle(facing, half) == 0
    assert normal_angle(facing, plane(127, 127, 127)) == 0
