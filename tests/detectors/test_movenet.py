"""MoveNet and OpenPifPaf: other networks, the same people, rule and drawing."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from detectors.base import Annotation, Image
from detectors.errors import DetectorError
from detectors.graph import Graph, load
from detectors.keypoints import COCO17
from detectors.movenet import MoveNetSpec
from detectors.openpifpaf import OpenPifPafSpec
from tests.detectors.running import batched, mixed
from tests.detectors.test_openpose import coco_pose, recall
from tests.weights import need_file


@pytest.fixture
def graph() -> Graph:
    pytest.importorskip("ai_edge_litert", reason="the extra tflite is not installed")
    need_file("movenet_multipose")
    return Graph([MoveNetSpec()])


def test_the_annotated_joints_are_found(graph: Graph) -> None:
    hit, total = recall(MoveNetSpec())
    assert total == 164
    assert hit >= 140


def test_joints_lie_on_the_image_whatever_its_shape(graph: Graph) -> None:
    spec = MoveNetSpec()
    image = coco_pose()[0][0]
    tall = np.zeros((2 * image.shape[0], image.shape[1], 3), np.uint8)
    tall[: image.shape[0]] = image
    one, other = (spec.people_in(found[spec.network])[0] for found in graph.run([image, tall]))
    both = np.isfinite(one.keypoints[:, 0]) & np.isfinite(other.keypoints[:, 0])
    assert both.sum() >= 10
    apart = np.linalg.norm((one.keypoints - other.keypoints)[both, :2], axis=1)
    assert np.median(apart) < 0.03 * image.shape[0]


def test_colours_matter_and_batches_do_not(graph: Graph) -> None:
    spec = MoveNetSpec()
    image = coco_pose()[0][0]
    right, swapped = graph.run([image, np.ascontiguousarray(image[:, :, ::-1])])
    assert not np.allclose(right[spec.network], swapped[spec.network], atol=1e-3)
    alone, *more = batched(graph, spec, mixed([image[60:360, 150:500]]))
    for together in more:
        assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def candidates(*scores: float) -> np.ndarray:
    rows = np.zeros((6, 52), np.float32)
    for row, score in zip(rows, scores, strict=False):
        row[:51] = np.column_stack(
            [np.arange(17) * 5 + 9, np.arange(17) * 4 + 9, [score] * 17]
        ).flat
        row[51] = score
    return rows


def test_thresholds_choose_people_and_joints() -> None:
    found = candidates(0.3, 0.9, 0.05)
    found[1, 2 : 2 + 3 * 12 : 3] = 0.1  # twelve weak joints
    people = MoveNetSpec().people_in(found)
    assert [(person.found, round(person.score, 2)) for person in people] == [(5, 0.9), (17, 0.3)]
    assert len(MoveNetSpec(person_score=0.5).people_in(found)) == 1
    assert [one.found for one in MoveNetSpec(joint_score=0.05).people_in(found)] == [17, 17]


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "detectors.networks.movenet.resolve", lambda name: SimpleNamespace(name="m")
    )
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(DetectorError, match=r"controlnet-factory\[tflite\]"):
        load(MoveNetSpec())


def test_openpifpaf_is_asked_for_by_name_and_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A double of the package's predictor: the real one does not install beside this torch."""
    monkeypatch.setitem(sys.modules, "openpifpaf", None)
    with pytest.raises(DetectorError, match=r"openpifpaf==0\.13\.11"):
        load(OpenPifPafSpec())

    class Predictor:
        device: Any = None

        def __init__(self, checkpoint: str) -> None:
            assert checkpoint == "shufflenetv2k30"
            assert self.device.type == "cpu"  # the package reads it as a torch.device

        def numpy_image(self, image: Image) -> tuple[list[Any], list[Any], dict[str, Any]]:
            data = np.zeros((17, 3), np.float32)
            data[:6] = [(10 * at + 10, 20, 0.9) for at in range(6)]
            return [SimpleNamespace(data=data, score=0.7)], [], {}

    monkeypatch.setitem(sys.modules, "openpifpaf", SimpleNamespace(Predictor=Predictor))
    spec = OpenPifPafSpec()
    image = np.zeros((64, 96, 3), np.uint8)
    (made,) = load(spec)([image], [np.random.default_rng(0)])
    assert isinstance(made, Annotation)
    assert made.map.any()
    assert made.parameters["fractions"] == [round(6 / len(COCO17), 4)]
    assert spec.network.identity == "openpifpaf 0.13.11 shufflenetv2k30"
