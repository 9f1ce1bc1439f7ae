"""Depth Anything V2: transformers' depth on the same weights, in any batch and of any size."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from detectors import weights
from detectors.base import Image, Precision, Refusal
from detectors.depth_anything import DepthAnythingNetwork, DepthAnythingSpec
from detectors.errors import WeightsError
from detectors.graph import Graph, load
from detectors.networks import depth_anything as network
from detectors.runtimes.on_torch import quietly
from tests.detectors.running import batched, graph_on, liven, maps, mixed, their_pixels

SIDE = 140  # pixels that the stand-in looks at; the published ones look at 518

SPEC = DepthAnythingSpec()


def saved(folder: Path, *, side: int = SIDE, kind: str = "relative") -> Path:
    """Write a tiny network of random weights as the hub has them: a stand-in that sees no depth."""
    from transformers import (
        DepthAnythingConfig,
        DepthAnythingForDepthEstimation,
        Dinov2Config,
        DPTImageProcessor,
    )

    backbone = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=518,
        patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        head_hidden_size=8,
        depth_estimation_type=kind,
    )
    torch.manual_seed(0)
    with quietly():
        net = liven(DepthAnythingForDepthEstimation(config))
    net.head.conv3.weight.data.abs_()  # what is below nothing is cut off
    net.save_pretrained(folder)
    DPTImageProcessor(
        size={"height": side, "width": side}, ensure_multiple_of=14, keep_aspect_ratio=True,
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("depth_anything"))


@pytest.fixture(scope="module")
def graph(folder: Path) -> Iterator[Graph]:
    yield from graph_on(folder, network, SPEC)


def their_depth(folder: Path, image: Image) -> np.ndarray:
    from transformers import AutoImageProcessor, DepthAnythingForDepthEstimation

    net = DepthAnythingForDepthEstimation.from_pretrained(folder).eval()
    with torch.inference_mode():
        out = net(their_pixels(folder, image))
    (found,) = AutoImageProcessor.from_pretrained(folder).post_process_depth_estimation(
        out, target_sizes=[image.shape[:2]]
    )
    return found["predicted_depth"].numpy()


@pytest.mark.parametrize("size", [(128, 128), (192, 256), (256, 64), (70, 140), (51, 97)])
def test_it_sees_what_transformers_gives_it(
    graph: Graph, folder: Path, photographs: list[Image], size: tuple[int, int]
) -> None:
    image = photographs[0][: size[0], : size[1]].copy()
    net = graph._networks[SPEC.network]
    ours = net.pixel_values(torch.from_numpy(image).permute(2, 0, 1)[None])
    theirs = their_pixels(folder, image)
    assert ours.shape == theirs.shape
    assert ours.shape[2] % 14 == ours.shape[3] % 14 == 0
    assert (ours - theirs).abs().max() < 1e-5


def test_pillows_cubic_differs_as_much_as_is_said(
    graph: Graph, folder: Path, photographs: list[Image]
) -> None:
    from transformers import AutoImageProcessor

    pillow = AutoImageProcessor.from_pretrained(folder, backend="pil")
    net = graph._networks[SPEC.network]
    for image in photographs:
        ours = net.pixel_values(torch.from_numpy(image).permute(2, 0, 1)[None])
        theirs = pillow(images=image, return_tensors="pt")["pixel_values"]
        levels = (ours - theirs).abs() * 255 * torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        assert levels.max() < 1.01
        assert levels.mean() < 0.005


@pytest.mark.parametrize("size", [(128, 128), (192, 256), (51, 97)])
def test_random_weights_give_transformers_depth(
    graph: Graph, folder: Path, photographs: list[Image], size: tuple[int, int]
) -> None:
    image = photographs[1][: size[0], : size[1]].copy()
    theirs = their_depth(folder, image)
    ours, swapped = (
        findings[SPEC.network] for findings in graph.run([image, image[:, :, ::-1].copy()])
    )
    assert theirs.std() / theirs.mean() > 0.05  # the stand-in shows something
    assert (ours.dtype, ours.shape) == (np.float32, image.shape[:2])
    assert np.abs(ours - theirs).max() / np.ptp(theirs) < 1e-5
    assert np.abs(swapped - theirs).max() / np.ptp(theirs) > 0.01
    (grey,) = maps(graph, SPEC, [image])
    expected = (theirs - theirs.min()) / np.ptp(theirs) * 255
    assert (grey.min(), grey.max()) == (0, 255)
    assert np.abs(grey - expected).max() < 1.01


def test_the_published_size_gives_transformers_depth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photographs: list[Image]
) -> None:
    folder = saved(tmp_path, side=518)
    monkeypatch.setattr(network, "resolve", lambda name: folder)
    image = photographs[2][:192].copy()
    (found,) = Graph([SPEC]).run([image])
    theirs = their_depth(folder, image)
    assert np.abs(found[SPEC.network] - theirs).max() / np.ptp(theirs) < 1e-5


def test_mixed_sizes_in_any_batch_give_the_same_depth(
    graph: Graph, photographs: list[Image]
) -> None:
    alone, *others = batched(graph, SPEC, mixed(photographs))
    for together in others:
        for one, other in zip(alone, together, strict=True):
            assert np.abs(one - other).max() / np.ptp(one) < 1e-5


@pytest.mark.parametrize(("precision", "error"), [("bf16", 0.03), ("fp16", 0.005)])
def test_lower_precisions_stay_close(
    graph: Graph, photographs: list[Image], precision: Precision, error: float
) -> None:
    image = photographs[1][:128, :128].copy()
    low = Graph([SPEC], precision=precision).run([image])[0][SPEC.network]
    full = graph.run([image])[0][SPEC.network]
    assert low.dtype == np.float32
    assert len(np.unique(low)) > 1000  # the last layer's steps are not half precision's
    assert np.abs(low - full).mean() / np.ptp(full) < error


def test_depth_is_stretched_in_8_or_16_bits_and_flat_depth_refused() -> None:
    ramp = np.linspace(1, 9, 64 * 64, dtype=np.float32).reshape(64, 64)
    image, draws = np.zeros((64, 64, 3), np.uint8), np.random.default_rng(0)
    fine = DepthAnythingSpec(bits=16).annotate(image, ramp, draws)
    assert (fine.map.dtype, fine.map.max()) == (np.uint16, 65535)
    assert fine.parameters == {"black": 1, "white": 9}
    assert SPEC.annotate(image, ramp, draws).map.dtype == np.uint8
    refused = SPEC.annotate(image, np.full_like(ramp, 4), draws)
    assert isinstance(refused, Refusal)
    assert refused.rule == "flat_depth"


def test_a_folder_of_another_network_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "resolve", lambda name: tmp_path)
    with pytest.raises(WeightsError, match="no DepthAnythingForDepthEstimation that can be loaded"):
        load(SPEC)  # an empty one
    saved(tmp_path, kind="metric")
    with pytest.raises(WeightsError, match=r"finds metric depth.*expected relative depth"):
        load(SPEC)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("DepthAnythingForDepthE", "DPTForDepthE"))
    with pytest.raises(WeightsError, match="has DPTForDepthEstimation, expected DepthAnythingFor"):
        load(SPEC)


def test_a_folder_that_lacks_tensors_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    monkeypatch.setattr(network, "resolve", lambda name: tmp_path)
    saved(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["head.conv3.weight"], state["head.conv3.bias"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks 2 of Depth.*tensors, first head\.conv3\.bias"):
        load(SPEC)


def test_a_missing_checkpoint_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(network, "resolve", weights.resolve)
    monkeypatch.setenv(weights.CACHE, str(tmp_path))
    monkeypatch.delenv(weights.FOLDERS, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(WeightsError, match="weights fetch depth_anything_v2_small --to FOLDER"):
        load(SPEC)


def test_the_weights_are_in_the_identity() -> None:
    assert DepthAnythingNetwork().identity == weights.identity("depth_anything_v2_small")


def test_specs_travel_and_refuse_what_they_do_not_know() -> None:
    spec = DepthAnythingSpec(bits=16)
    assert pickle.loads(pickle.dumps(spec)) == spec
    for wrong in ({"bits": 12}, {"checkpoint": "midas_dpt_hybrid"}):
        with pytest.raises(ValidationError):
            DepthAnythingSpec(**wrong)
