"""Segmentation: a dataset's own ids in its palette's colours; networks equal to their own."""

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import BaseModel, ValidationError

from detectors.base import Annotation, Image, Precision, Refusal
from detectors.errors import DetectorError, WeightsError
from detectors.graph import Graph, load
from detectors.networks import deeplab, upernet
from detectors.palettes import palette, voc_colour
from detectors.runtimes.on_torch import quietly
from detectors.segmentation import SegDeepLabSpec, SegLabelsSpec, SegUperNetSpec, UperNetwork
from tests.detectors.running import batched, graph_on, liven, maps, mixed, their_pixels
from tests.weights import need_file

pytestmark = pytest.mark.usefixtures("controlnet_aux_quiet")

SHARED = Path(__file__).parents[2].parent / "shared"
IMAGE = np.zeros((64, 64, 3), np.uint8)


def finish(spec: BaseModel, found: object) -> Annotation | Refusal:
    return spec.annotate(IMAGE, found, np.random.default_rng(0))


def stripes(*ids: int) -> np.ndarray:
    return np.repeat(np.array(ids, np.int32), 64 // len(ids))[:, None].repeat(64, 1)


def test_ade20k_has_upstreams_colours() -> None:
    from controlnet_aux.util import ade_palette

    result = finish(SegLabelsSpec(palette="ade20k"), stripes(0, 1, 3, 150))
    expected = [(0, 0, 0), *(tuple(ade_palette()[at]) for at in (0, 2, 149))]
    assert [tuple(row) for row in result.map[::16, 5].tolist()] == expected
    assert expected[1:3] == [(120, 120, 120), (6, 230, 230)]  # wall; sky, in which blue is not red
    assert result.parameters == {
        "palette": "ade20k",
        "classes": {"0": 0.25, "1": 0.25, "3": 0.25, "150": 0.25},
    }


def test_ade20k_has_the_datasets_own_colours() -> None:
    scipy_io = pytest.importorskip("scipy.io")
    path = SHARED / "weights/deeplab_ade20k/color150.mat"
    if not path.exists():
        pytest.skip("CSAILVision's color150.mat is not beside this checkout")
    theirs = scipy_io.loadmat(path)["colors"]
    assert (palette("ade20k").colours[1:151] == theirs).all()


def test_coco_stuff_has_vocs_colours_far_apart() -> None:
    assert [voc_colour(at) for at in (0, 1, 2, 4, 15, 20, 255)] == [
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (0, 0, 128),
        (192, 128, 128),
        (0, 64, 128),
        (224, 224, 192),
    ]
    result = finish(SegLabelsSpec(palette="coco_stuff"), stripes(0, 3, 181, 255))
    rows = [tuple(row) for row in result.map[::16, 5].tolist()]
    assert rows == [(128, 0, 0), (0, 0, 128), voc_colour(182), (0, 0, 0)]
    colours = palette("coco_stuff").colours[:182].astype(int)
    apart = np.abs(colours[:, None] - colours[None]).max(axis=2) + 255 * np.eye(182, dtype=int)
    assert apart.min() >= 32
    assert colours.any(axis=1).all()  # none is as black as no class


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("ade20k", 151), ("ade20k", 255), ("coco_stuff", 182), ("ade20k", -1), ("ade20k", 70000)],
)
def test_unknown_ids_are_named(name: str, wrong: int) -> None:
    with pytest.raises(DetectorError, match=rf"class ids {wrong} are not {name}'s"):
        finish(SegLabelsSpec(palette=name), stripes(1, wrong))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (None, "label is NoneType"),
        (np.zeros((64, 64), np.float32), "float32"),
        (np.zeros((32, 64), np.int32), r"\(32, 64\), expected \(64, 64\)"),
        (np.zeros((64, 64, 3), np.uint8), r"\(64, 64, 3\)"),
    ],
)
def test_labels_that_are_no_classes_are_named(label: np.ndarray | None, message: str) -> None:
    with pytest.raises(DetectorError, match=message):
        finish(SegLabelsSpec(palette="ade20k"), label)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.int64])
def test_labels_of_any_integers_are_taken(kind: type) -> None:
    made = finish(SegLabelsSpec(palette="ade20k"), stripes(2, 150).astype(kind))
    assert (made.map == finish(SegLabelsSpec(palette="ade20k"), stripes(2, 150)).map).all()


def test_too_many_pixels_without_a_class_refuse() -> None:
    spec = SegLabelsSpec(palette="ade20k", max_unlabelled=0.2)
    refused = finish(spec, stripes(0, 1, 2, 3))
    assert isinstance(refused, Refusal)
    assert (refused.rule, refused.value, refused.threshold) == ("unlabelled", 0.25, 0.2)
    assert refused.parameters["classes"]["0"] == 0.25
    assert isinstance(finish(spec, stripes(4, 1, 2, 3)), Annotation)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny UperNet of random weights, in a folder as the hub has them."""
    return _saved(tmp_path_factory.mktemp("upernet"), labels=150)


def _saved(folder: Path, labels: int) -> Path:
    from transformers import (
        ConvNextConfig,
        SegformerImageProcessor,
        UperNetConfig,
        UperNetForSemanticSegmentation,
    )

    backbone = ConvNextConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = UperNetConfig(
        backbone_config=backbone,
        hidden_size=16,
        auxiliary_in_channels=24,
        auxiliary_channels=8,
        num_labels=labels,
    )
    with quietly():
        net = UperNetForSemanticSegmentation(config)
        liven(net).save_pretrained(folder)
    SegformerImageProcessor(size={"height": 128, "width": 128}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def graph(folder: Path) -> Iterator[Graph]:
    yield from graph_on(folder, upernet, SegUperNetSpec())


def their_ids(folder: Path, image: Image) -> np.ndarray:
    from transformers import AutoImageProcessor, UperNetForSemanticSegmentation

    net = UperNetForSemanticSegmentation.from_pretrained(folder).eval()
    with torch.inference_mode():
        out = net(their_pixels(folder, image))
    (ids,) = AutoImageProcessor.from_pretrained(folder).post_process_semantic_segmentation(
        out, target_sizes=[image.shape[:2]]
    )
    return ids.numpy() + 1


@pytest.mark.parametrize("size", [(128, 128), (192, 256), (64, 96)])
def test_upernet_sees_what_transformers_gives_it(
    graph: Graph, folder: Path, photographs: list[Image], size: tuple[int, int]
) -> None:
    image = photographs[0][: size[0], : size[1]].copy()
    net = graph._networks[UperNetwork()]
    ours = net.pixel_values(torch.from_numpy(image).permute(2, 0, 1)[None])
    assert ours.shape == (1, 3, 128, 128)
    assert (ours - their_pixels(folder, image)).abs().max() < 1e-5


@pytest.mark.parametrize("size", [(128, 128), (192, 256)])
def test_upernet_gives_transformers_classes_in_the_right_colours(
    graph: Graph, folder: Path, photographs: list[Image], size: tuple[int, int]
) -> None:
    image = photographs[1][: size[0], : size[1]].copy()
    theirs = their_ids(folder, image)
    ours, swapped = (
        findings[UperNetwork()] for findings in graph.run([image, image[:, :, ::-1].copy()])
    )
    assert len(np.unique(theirs)) > 5  # the stand-in shows something
    assert (ours != theirs).mean() < 1e-3
    assert (swapped != theirs).mean() > 0.05
    (painted,) = maps(graph, SegUperNetSpec(), [image])
    assert (painted == palette("ade20k").colours[ours]).all()


def test_upernet_gives_the_same_classes_in_any_batch(
    graph: Graph, photographs: list[Image]
) -> None:
    alone, *others = batched(graph, SegUperNetSpec(), mixed(photographs))
    for together in others:
        for one, other in zip(alone, together, strict=True):
            assert (one != other).mean() < 1e-3


@pytest.mark.parametrize(("precision", "share"), [("bf16", 0.1), ("fp16", 0.02)])
def test_upernet_finds_nearly_the_same_in_lower_precisions(
    graph: Graph, photographs: list[Image], precision: Precision, share: float
) -> None:
    image = photographs[2][:128, :128].copy()
    low = Graph([SegUperNetSpec()], precision=precision).run([image])[0][UperNetwork()]
    full = graph.run([image])[0][UperNetwork()]
    assert (low != full).mean() < share


def test_upernet_of_another_dataset_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upernet, "resolve", lambda name: _saved(tmp_path, labels=19))
    with pytest.raises(WeightsError, match="19 classes, expected ADE20K's 150"):
        load(SegUperNetSpec())


def test_deeplab_finds_what_is_there() -> None:
    from catalog.images import decode_image

    pytest.importorskip("ai_edge_litert", reason="the extra tflite is not installed")
    need_file("deeplab_ade20k")
    path = SHARED / "data/ade20k/ADE_val_00000001.jpg"
    if not path.exists():
        pytest.skip("the photographs of ADE20K are not beside this checkout")
    image = decode_image(path.read_bytes())
    graph = Graph([SegDeepLabSpec()])
    right, wrong, small = (
        findings[SegDeepLabSpec().network]
        for findings in graph.run([image, image[:, :, ::-1].copy(), image[:256, :384].copy()])
    )
    wall, floor = 1, 4
    assert (right == wall).mean() > 0.2
    assert (right == floor).mean() > 0.05
    assert (right != wrong).mean() > 0.05
    assert small.shape == (256, 384)
    result = SegDeepLabSpec().annotate(image, right, np.random.default_rng(0))
    assert (result.map[right == wall] == (120, 120, 120)).all()


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setattr(deeplab, "resolve", lambda name: tmp_path)
    with pytest.raises(DetectorError, match=r"controlnet-factory\[tflite\]"):
        load(SegDeepLabSpec())


@pytest.mark.parametrize(
    "spec", [SegLabelsSpec(palette="ade20k"), SegUperNetSpec(), SegDeepLabSpec()]
)
def test_specs_travel_and_refuse_what_they_do_not_know(spec: BaseModel) -> None:
    assert pickle.loads(pickle.dumps(spec)) == spec
    with pytest.raises(ValidationError, match="Extra inputs"):
        type(spec)(**spec.model_dump(), pallete="ade20k")


def test_a_palette_must_be_named() -> None:
    for wrong in ({}, {"palette": "cityscapes"}):
        with pytest.raises(ValidationError, match="palette"):
            SegLabelsSpec(**wrong)
