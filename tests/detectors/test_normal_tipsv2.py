"""TIPSv2: transformers' normals on the same weights, in any batch and of any size."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from detectors import weights
from detectors.base import Image, Precision
from detectors.errors import WeightsError
from detectors.graph import Graph, load
from detectors.networks import tipsv2 as network
from detectors.normal_tipsv2 import NormalTipsv2Spec
from detectors.runtimes.on_torch import quietly
from tests.detectors import test_depth_anything
from tests.detectors.running import batched, graph_on, liven, maps, mixed

SIDE = 112  # pixels that the stand-in looks at; the published one looks at 448

SPEC = NormalTipsv2Spec()


def saved(folder: Path) -> Path:
    """Write a tiny network of random weights as the hub has them, all three heads: a stand-in."""
    from transformers import (
        Tipsv2DptConfig,
        Tipsv2DptForDensePrediction,
        Tipsv2DptImageProcessor,
        Tipsv2VisionConfig,
    )

    backbone = Tipsv2VisionConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=SIDE,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    config = Tipsv2DptConfig(
        backbone_config=backbone, neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=16
    )
    torch.manual_seed(0)
    with quietly():
        net = liven(Tipsv2DptForDensePrediction(config))
    net.save_pretrained(folder)
    Tipsv2DptImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("tipsv2"))


@pytest.fixture(scope="module")
def graph(folder: Path) -> Iterator[Graph]:
    yield from graph_on(folder, network, SPEC)


def their_normals(folder: Path, image: Image) -> np.ndarray:
    """By the network of three heads, (h, w, 3); resized, its unit vectors are shorter."""
    from transformers import AutoImageProcessor, Tipsv2DptForDensePrediction

    processor = AutoImageProcessor.from_pretrained(folder)
    net = Tipsv2DptForDensePrediction.from_pretrained(folder).eval()
    with torch.inference_mode():
        out = net(**processor(images=image, return_tensors="pt"))
    (found,) = processor.post_process_normal_estimation(out, target_sizes=[image.shape[:2]])
    normals = found["normals"].permute(1, 2, 0).numpy()
    return normals / np.linalg.norm(normals, axis=2, keepdims=True)


@pytest.mark.parametrize("size", [(112, 112), (192, 256), (51, 97)])
def test_random_weights_give_transformers_normals(
    graph: Graph, folder: Path, photographs: list[Image], size: tuple[int, int]
) -> None:
    image = photographs[1][: size[0], : size[1]].copy()
    theirs = their_normals(folder, image)
    ours, swapped = (
        findings[SPEC.network] for findings in graph.run([image, image[:, :, ::-1].copy()])
    )
    assert (theirs.std(axis=(0, 1)) > 0.05).all()  # the stand-in shows something
    assert (ours.dtype, ours.shape) == (np.float32, image.shape)
    assert np.abs(ours - theirs).max() < 1e-4
    assert np.abs(swapped - theirs).max() > 0.01
    (painted,) = maps(graph, SPEC, [image])
    assert np.abs(painted - (theirs + 1) * 127.5).max() < 1.01  # red left, green up, blue back


def test_mixed_sizes_in_any_batch_give_the_same_normals(
    graph: Graph, photographs: list[Image]
) -> None:
    alone, *others = batched(graph, SPEC, mixed(photographs))
    for together in others:
        for one, other in zip(alone, together, strict=True):
            assert np.abs(one - other).max() < 1e-4


@pytest.mark.parametrize(("precision", "error"), [("bf16", 0.1), ("fp16", 0.02)])
def test_lower_precisions_stay_close(
    graph: Graph, photographs: list[Image], precision: Precision, error: float
) -> None:
    image = photographs[1][:128, :128].copy()
    low = Graph([SPEC], precision=precision).run([image])[0][SPEC.network]
    full = graph.run([image])[0][SPEC.network]
    assert low.dtype == np.float32
    assert np.abs(np.linalg.norm(low, axis=2) - 1).max() < 1e-5
    assert np.abs(low - full).mean() < error


def test_a_folder_of_another_network_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "resolve", lambda name: tmp_path)
    with pytest.raises(WeightsError, match="no Tipsv2DptForNormalEstimation that can be loaded"):
        load(SPEC)  # an empty one
    test_depth_anything.saved(tmp_path)
    with pytest.raises(WeightsError, match="has DepthAnythingForDepthEstimation, expected Tipsv2"):
        load(SPEC)


def test_a_folder_without_the_head_of_normals_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    monkeypatch.setattr(network, "resolve", lambda name: tmp_path)
    saved(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in state.items() if "normals" not in name}
    assert len(kept) < len(state)
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks \d+ of Tipsv2DptForNormalEstimation's tensors"):
        load(SPEC)


def test_the_weights_are_in_the_identity_and_come_from_a_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(weights.CACHE, str(tmp_path / "cache"))
    monkeypatch.delenv(weights.FOLDERS, raising=False)
    monkeypatch.setattr(network, "resolve", weights.resolve)
    with pytest.raises(WeightsError, match="google/tipsv2-b14-dpt"):
        load(SPEC)
    (tmp_path / "tipsv2_b14_dpt").symlink_to(folder)
    monkeypatch.setenv(weights.FOLDERS, str(tmp_path))
    assert SPEC.network.identity == weights.identity("tipsv2_b14_dpt")
    load(SPEC)


def test_specs_travel_and_refuse_what_they_do_not_know() -> None:
    spec = NormalTipsv2Spec(convention="midas")
    assert pickle.loads(pickle.dumps(spec)) == spec
    for wrong in ({"convention": "opengl"}, {"checkpoint": "normal_bae"}):
        with pytest.raises(ValidationError):
            NormalTipsv2Spec(**wrong)
