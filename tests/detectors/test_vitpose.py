"""ViTPose++ in RT-DETR's boxes: transformers' own people on random weights, named so."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from detectors import weights
from detectors.base import Image, Precision, Refusal, generator_for
from detectors.errors import WeightsError
from detectors.graph import Graph, annotate
from detectors.networks import vitpose as network
from detectors.networks.vitpose import Vitpose, cut_out, peaks
from detectors.runtimes.on_torch import quietly
from detectors.vitpose import VitposeNetwork, VitposeSpec
from tests.detectors.running import batched, liven, mixed

SIDE = 64  # of the square that the stand-in looks for people in
HEIGHT, WIDTH = 64, 48
SPEC = VitposeSpec(person_score=0.1, joint_score=0)


def livelier(net: nn.Module) -> nn.Module:
    """Give layers random weights that let a picture through: what they begin with is near zero."""
    generator = torch.Generator().manual_seed(3)
    for layer in liven(net).modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
    return net


def save_boxes(folder: Path, labels: tuple[str, ...] = ("person", "dog")) -> None:
    """Write a tiny RT-DETR of random weights, which finds people anywhere."""
    from transformers import (
        RTDetrConfig,
        RTDetrForObjectDetection,
        RTDetrImageProcessor,
        RTDetrResNetConfig,
    )

    backbone = RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
    )
    config = RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[8, 16, 16],
        encoder_hidden_dim=16,
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        d_model=16,
        decoder_in_channels=[16, 16, 16],
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
        decoder_layers=2,
        num_queries=12,
        num_denoising=0,
        hidden_expansion=1.0,
        id2label=dict(enumerate(labels)),
    )
    torch.manual_seed(0)
    with quietly():
        net = livelier(RTDetrForObjectDetection(config))
        net.save_pretrained(folder)
    RTDetrImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def save_pose(folder: Path, joints: int = 17, experts: int = 3) -> None:
    """Write a tiny ViTPose++ of random weights."""
    from transformers import (
        VitPoseBackboneConfig,
        VitPoseConfig,
        VitPoseForPoseEstimation,
        VitPoseImageProcessor,
    )

    backbone = VitPoseBackboneConfig(
        image_size=[HEIGHT, WIDTH],
        patch_size=[16, 16],
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        num_experts=experts,
        part_features=8,
        out_indices=[2],
    )
    config = VitPoseConfig(backbone_config=backbone, num_labels=joints, use_simple_decoder=False)
    torch.manual_seed(1)
    with quietly():
        livelier(VitPoseForPoseEstimation(config)).save_pretrained(folder)
    VitPoseImageProcessor(size={"height": HEIGHT, "width": WIDTH}).save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("vitpose")
    save_boxes(made / "rtdetr_r50vd")
    save_pose(made / "vitpose_plus_base")
    return made


@pytest.fixture(scope="module")
def net(folder: Path) -> Vitpose:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "resolve", lambda name: folder / name)
        return Vitpose("vitpose_plus_base", "rtdetr_r50vd", "cpu", "fp32")


@pytest.fixture
def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(network, "resolve", lambda name: folder / name)
    return folder


def their_people(folder: Path, image: Image) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return boxes and joints, each with scores, as transformers' documentation makes them."""
    from transformers import (
        AutoImageProcessor,
        RTDetrForObjectDetection,
        VitPoseForPoseEstimation,
    )

    look = AutoImageProcessor.from_pretrained(folder / "rtdetr_r50vd")
    finder = RTDetrForObjectDetection.from_pretrained(folder / "rtdetr_r50vd").eval()
    with torch.inference_mode():
        seen = finder(**look(images=image, return_tensors="pt"))
    (found,) = look.post_process_object_detection(
        seen, target_sizes=[image.shape[:2]], threshold=0.1
    )
    people = found["labels"] == 0
    boxes = found["boxes"][people].numpy()
    how = AutoImageProcessor.from_pretrained(folder / "vitpose_plus_base")
    pose = VitPoseForPoseEstimation.from_pretrained(folder / "vitpose_plus_base").eval()
    coco = boxes.copy()
    coco[:, 2:] -= coco[:, :2]
    inputs = how(image, boxes=[coco], return_tensors="pt")
    with torch.inference_mode():
        made = pose(**inputs, dataset_index=torch.zeros(len(boxes), dtype=torch.long))
    (bodies,) = how.post_process_pose_estimation(made, boxes=[coco])
    joints = [np.column_stack([one["keypoints"], one["scores"]]) for one in bodies]
    return [
        np.append(box, score) for box, score in zip(boxes, found["scores"][people], strict=True)
    ], joints


def test_people_are_those_of_transformers(
    net: Vitpose, folder: Path, photographs: list[Image]
) -> None:
    for image in (photographs[0], photographs[1][:200, :120]):
        boxes, joints = their_people(folder, image)
        assert len(boxes) > 1
        ((ours, scores),) = net(image[None])
        ((found, _),) = net.boxes_of(image[None])
        assert np.allclose(np.column_stack([found, scores]), np.stack(boxes), atol=1e-3)
        theirs = np.stack(joints)
        assert np.allclose(ours[..., 2], theirs[..., 2], atol=1e-3)
        apart = np.linalg.norm(ours[..., :2] - theirs[..., :2], axis=-1)
        assert np.median(apart) < 1e-3
        assert np.quantile(apart, 0.98) < 0.1  # a flat heatmap has no certain peak


def test_peaks_are_those_of_transformers_processor() -> None:
    from transformers.models.vitpose.image_processing_vitpose import (
        get_keypoint_predictions,
        post_dark_unbiased_data_processing,
    )

    draw = np.random.default_rng(0)
    y, x = np.mgrid[:64, :48]
    middles = draw.uniform(5, 42, (6, 17, 2, 1, 1))
    middles[0, :4, :, 0, 0] = [(0, 0), (47, 63), (0.3, 62.8), (20, 0.4)]
    heatmaps = np.exp(-((x - middles[:, :, 0]) ** 2 + (y - middles[:, :, 1]) ** 2) / 8).astype(
        np.float32
    )
    heatmaps += draw.uniform(0, 0.02, heatmaps.shape).astype(np.float32)
    coords, scores = get_keypoint_predictions(heatmaps.copy())
    theirs = post_dark_unbiased_data_processing(coords, heatmaps.copy(), kernel=11)
    ours, heights = (found.numpy() for found in peaks(torch.from_numpy(heatmaps)))
    assert np.abs(ours - theirs).max() < 1e-3
    assert np.array_equal(heights, scores[..., 0])
    assert np.abs(ours - middles[..., 0, 0])[1:].max() < 0.3


@pytest.mark.parametrize(
    "box",
    [
        (10, 20, 90, 180),
        (-20, 5, 60, 40),
        (50, 60, 300, 200),
        (7, 8, 9, 10.5),
        (200, 150, 255.5, 256),
        (300, 20, 400, 90),
    ],
)
def test_crops_are_those_of_transformers_processor(
    folder: Path, photographs: list[Image], box: tuple[float, ...]
) -> None:
    from transformers import AutoImageProcessor

    how = AutoImageProcessor.from_pretrained(folder / "vitpose_plus_base")
    image = photographs[0]
    coco = [[box[0], box[1], box[2] - box[0], box[3] - box[1]]]
    theirs = how(image, boxes=[coco], do_normalize=False, return_tensors="pt").pixel_values[0]
    ours, _ = cut_out(image, np.array(box), (HEIGHT, WIDTH))
    differ = np.abs(ours - theirs.permute(1, 2, 0).numpy() * 255)
    assert differ.max() < 1.01  # at the picture's border, too
    assert differ.mean() < 0.01
    assert ours.any() == (box[0] < 256)


def test_alone_and_together_they_are_the_same(
    stand_in: Path, photographs: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, *others = batched(Graph([SPEC]), SPEC, mixed(photographs))
    assert sum(len(scores) for _, scores in alone) > 2 * 7
    monkeypatch.setattr(network, "_TOGETHER", 7)
    more = [*others, *batched(Graph([SPEC]), SPEC, mixed(photographs))]
    for together in more:
        for (bodies, scores), (other, others) in zip(alone, together, strict=True):
            assert np.allclose(scores, others, atol=1e-5)
            assert np.quantile(np.abs(bodies - other), 0.98) < 1e-2


@pytest.mark.parametrize(("precision", "score"), [("fp16", 0.005), ("bf16", 0.02)])
def test_lower_precisions_stay_close(
    stand_in: Path, net: Vitpose, photographs: list[Image], precision: Precision, score: float
) -> None:
    low = Vitpose("vitpose_plus_base", "rtdetr_r50vd", "cpu", precision)
    ((bodies, near),), ((_, scores),) = low(photographs[0][None]), net(photographs[0][None])
    assert bodies.dtype == near.dtype == np.float32
    assert np.abs(near[:4] - scores[:4]).max() < score


def test_a_network_without_experts_is_run(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photographs: list[Image]
) -> None:
    save_pose(tmp_path, experts=1)
    places = {"vitpose_plus_base": tmp_path, "rtdetr_r50vd": stand_in / "rtdetr_r50vd"}
    monkeypatch.setattr(network, "resolve", places.__getitem__)
    found = Vitpose("vitpose_plus_base", "rtdetr_r50vd", "cpu", "fp32")(photographs[0][None])
    assert len(found[0][0]) > 1


def test_colours_matter(net: Vitpose, red_and_blue: Image) -> None:
    ((_, right),) = net(red_and_blue[None])
    ((_, swapped),) = net(red_and_blue[None, :, :, ::-1].copy())
    assert right.shape != swapped.shape or not np.allclose(right, swapped, atol=1e-3)


def test_nobody_is_refused_and_never_made_up(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch, photographs: list[Image]
) -> None:
    monkeypatch.setattr(network, "_BOX_SCORE", 1.0)
    image = photographs[0]
    (found,) = Graph([SPEC]).run([image])
    bodies, scores = found[SPEC.network]
    assert (bodies.shape, scores.shape) == ((0, 17, 3), (0,))
    made = annotate(SPEC, image, found, generator_for("a", "vitpose", 0))
    assert isinstance(made, Refusal)
    assert (made.rule, made.value) == ("keypoints", 0)


def test_other_networks_and_missing_ones_are_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsError, match=r"vitpose_plus_base|rtdetr_r50vd"):
        VitposeNetwork().load("cpu", "fp32")
    save_boxes(tmp_path / "animals", labels=("cat", "dog"))
    save_pose(tmp_path / "hand", joints=21)
    places: dict[str, Any] = {"rtdetr_r50vd": tmp_path / "animals"}
    monkeypatch.setattr(network, "resolve", lambda name: places.get(name, folder / name))
    with pytest.raises(WeightsError, match="no class person, but cat, dog"):
        VitposeNetwork().load("cpu", "fp32")
    places = {"vitpose_plus_base": tmp_path / "hand"}
    with pytest.raises(WeightsError, match="has 21 joints, not 17"):
        VitposeNetwork().load("cpu", "fp32")


def test_the_pose_network_is_known_by_its_hash() -> None:
    assert VitposeNetwork().checkpoints == ("vitpose_plus_base", "rtdetr_r50vd")
    assert weights.identity("vitpose_plus_base").startswith("640225e4")
    small = VitposeSpec(checkpoint="vitpose_plus_small").network
    assert small.checkpoints == ("vitpose_plus_small", "rtdetr_r50vd")
    assert weights.identity("vitpose_plus_small").startswith("f7bad8ed")
