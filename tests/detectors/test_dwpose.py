"""DWPose on stand-ins whose boxes and joints a test can foretell; no trained network is here."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detectors import weights
from detectors.base import Annotation, Image, Refusal, generator_for
from detectors.dwpose import DwposeNetwork, DwposeSpec
from detectors.errors import DetectorError, WeightsError
from detectors.graph import Graph, annotate
from detectors.networks.dwpose import cut_out
from detectors.runtimes.on_onnx import OnnxModel
from detectors.runtimes.on_torch import quietly
from detectors.skeleton import BONES, draw_faces, draw_hands
from tests.detectors.running import batched, mixed
from tests.planted_dwpose import JOINTS, Box, save_boxes, save_pose

PEOPLE: list[Box] = [
    (100, 100, 300, 500, 0.9, 0),
    (105, 110, 310, 480, 0.8, 0),  # the first again
    (400, 50, 500, 250, 0.7, 0),
    (30, 30, 90, 90, 0.95, 16),  # a dog
]


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put stand-ins in the checkpoints' place; return their folder."""
    save_boxes(tmp_path / "yolox_l", PEOPLE)
    save_pose(tmp_path / "dwpose_l_384")
    monkeypatch.setattr("detectors.networks.dwpose.resolve", lambda name: tmp_path / name)
    return tmp_path


def blue_with(*dots: tuple[int, int, int], size: tuple[int, int] = (480, 640)) -> Image:
    """Return a blue picture with red dots: x, y, level."""
    image = np.zeros((*size, 3), np.uint8)
    image[..., 2] = 255
    for x, y, level in dots:
        image[y - 1 : y + 2, x - 1 : x + 2, 0] = level
    return image


def people(image: Image, spec: DwposeSpec | None = None) -> list[Any]:
    spec = spec or DwposeSpec()
    (found,) = Graph([spec]).run([image])
    return list(spec.people_in(found[spec.network]))


def test_people_are_found_where_they_are(planted: Path) -> None:
    first, second = people(blue_with((151, 201, 255), (441, 91, 240)))
    assert (first.score, second.score) == pytest.approx((0.9, 0.7))
    for person, place in ((first, (151, 201)), (second, (441, 91))):
        assert person.keypoints.shape == (JOINTS, 3)
        apart = np.abs(person.keypoints[:, :2] - place)
        assert apart.max() < 2  # a pixel of the network's, and the dot's own
    twice = np.ascontiguousarray(blue_with((302, 402, 255), size=(960, 1280)))
    assert np.abs(people(twice)[0].keypoints[:, :2] - (302, 402)).max() < 3


def test_the_boxes_see_blue_first_and_the_joints_see_red_first(planted: Path) -> None:
    dark = blue_with((151, 201, 255), (441, 91, 255))
    dark[..., 2] = 127  # half as blue: half as sure
    assert [person.score for person in people(dark)] == pytest.approx([0.45, 0.35], abs=0.01)
    assert people(np.ascontiguousarray(dark[..., ::-1])) == []  # no blue: nobody
    green = blue_with()
    green[200:203, 150:153, 1] = 255
    assert people(green) == []


def test_alone_and_together_they_are_the_same(planted: Path) -> None:
    spec = DwposeSpec()
    images = mixed([blue_with((151, 201, 255)), blue_with((441, 91, 240), size=(640, 480))])
    alone, *more = batched(Graph([spec]), spec, images)
    for together in more:
        for one, other in zip(alone, together, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_nobody_is_refused_and_never_made_up(planted: Path) -> None:
    spec = DwposeSpec()
    black = np.zeros((64, 64, 3), np.uint8)
    (found,) = Graph([spec]).run([black])
    made = annotate(spec, black, found, generator_for("a", "dwpose", 0))
    assert isinstance(made, Refusal)
    assert (made.rule, made.value, made.threshold) == ("keypoints", 0, 0.3)


def findings(seen: int, score: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """Return one person on a grid, of whom so many keypoints are sure."""
    body = np.zeros((1, JOINTS, 3), np.float32)
    body[0, :, 0] = 5 + 4 * (np.arange(JOINTS) % 12)
    body[0, :, 1] = 5 + 4 * (np.arange(JOINTS) // 12)
    body[0, :seen, 2] = 0.8
    return body, np.array([score], np.float32)


def test_the_rule_counts_all_133_keypoints() -> None:
    spec, image, draws = DwposeSpec(), np.zeros((64, 64, 3), np.uint8), generator_for("a", "b", 0)
    kept = spec.annotate(image, findings(40), draws)
    assert isinstance(kept, Annotation)
    assert kept.parameters["fractions"] == [pytest.approx(40 / 133, abs=1e-4)]
    assert len(kept.parameters["people"][0]["keypoints"]) == JOINTS
    lost = spec.annotate(image, findings(39), draws)
    assert isinstance(lost, Refusal)
    assert lost.map is not None
    assert DwposeSpec(person_score=0.95).people_in(findings(133)) == []
    assert DwposeSpec(joint_score=0.9).people_in(findings(133)) == []


def test_hands_and_faces_are_drawn_where_they_are_asked_for() -> None:
    image, draws = np.zeros((64, 64, 3), np.uint8), generator_for("a", "b", 0)
    made = {}
    for name, fields in (
        ("all", {}),
        ("no hands", {"hands": False}),
        ("no face", {"face": False}),
        ("body", {"hands": False, "face": False}),
    ):
        kept = DwposeSpec(**fields).annotate(image, findings(133), draws)
        assert isinstance(kept, Annotation)
        made[name] = kept.map.tobytes()
    assert len(set(made.values())) == 4


def test_hands_and_faces_are_drawn_as_controlnet_aux_does() -> None:
    with quietly():
        from controlnet_aux.open_pose.body import Keypoint
        from controlnet_aux.open_pose.util import draw_facepose, draw_handpose

    draw = np.random.default_rng(2)
    for _ in range(20):
        hand, face = (draw.uniform(3, 250, (count, 3)) for count in (21, 68))
        ours = np.zeros((256, 256, 3), np.uint8)
        draw_hands(ours, [hand])
        draw_faces(ours, [face])
        theirs = np.zeros((256, 256, 3), np.uint8)
        for points, paint in ((hand, draw_handpose), (face, draw_facepose)):
            paint(theirs, [Keypoint(x=x / 256, y=y / 256) for x, y, _ in points])
        assert np.array_equal(ours, theirs)
    assert len(BONES) == 20
    assert {bone[0] for bone in BONES[::4]} == {0}


@pytest.mark.parametrize("box", [(10, 20, 50, 200), (-30, -10, 90, 60), (0, 0, 640, 480)])
def test_a_crop_says_where_it_was_cut(box: tuple[int, int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    crop, (left, top, step) = cut_out(image, np.array(box), (384, 288))
    assert crop.shape == (384, 288, 3)
    assert (left + 144 * step, top + 192 * step) == pytest.approx(
        ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    )
    assert 288 * step >= 1.25 * (box[2] - box[0]) - 1e-6
    assert 384 * step >= 1.25 * (box[3] - box[1]) - 1e-6


def test_both_checkpoints_are_in_the_fingerprint_and_asked_for() -> None:
    network = DwposeNetwork()
    assert network.checkpoints == ("dwpose_l_384", "yolox_l")
    identities = [weights.identity(name) for name in network.checkpoints]
    assert network.identity == "+".join(identities)
    with pytest.raises(WeightsError, match=r"dwpose_l_384|yolox_l"):
        network.load("cpu", "fp32")


def test_what_cannot_be_run_is_said(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_pose(planted / "dwpose_l_384", joints=17)
    with pytest.raises(WeightsError, match="has 17 joints, not 133"):
        DwposeNetwork().load("cpu", "fp32")
    (planted / "broken").write_bytes(b"no model")
    with pytest.raises(WeightsError, match="cannot be loaded as an ONNX model"):
        OnnxModel(planted / "broken", "cpu")
    with pytest.raises(DetectorError, match="pip install onnxruntime-gpu"):
        OnnxModel(planted / "yolox_l", "cuda:0")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DetectorError, match=r"controlnet-factory\[onnx\]"):
        OnnxModel(planted / "yolox_l", "cpu")
