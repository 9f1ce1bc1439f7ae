"""EoMT: transformers' classes on the same weights, in any batch, however many squares it takes."""

import hashlib
import json
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
from detectors.networks import eomt as network
from detectors.palettes import palette
from detectors.runtimes.on_torch import quietly
from detectors.segmentation import SegEomtSpec
from tests.detectors.running import batched, graph_on, liven, maps, mixed

SIDE = 64  # pixels of the stand-in's square; the published one's has 512

SPEC = SegEomtSpec()


def saved(folder: Path, *, labels: int = 150, split: bool = True) -> Path:
    """Write a tiny network of random weights as the hub has them: a stand-in that knows nothing."""
    from transformers import EomtConfig, EomtForUniversalSegmentation, EomtImageProcessor

    config = EomtConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_blocks=1,
        image_size=SIDE,
        patch_size=8,
        num_queries=24,
        num_labels=labels,
    )
    torch.manual_seed(0)
    with quietly():
        net = liven(EomtForUniversalSegmentation(config))
    net.attn_mask_probs.zero_()  # as after training: queries look at every patch
    torch.nn.init.normal_(net.query.weight, std=2)
    torch.nn.init.normal_(net.class_predictor.weight, std=1)
    for layer in (net.mask_head.fc1, net.mask_head.fc2, net.mask_head.fc3):
        torch.nn.init.kaiming_normal_(layer.weight)
    net.save_pretrained(folder)
    EomtImageProcessor(
        size={"shortest_edge": SIDE, "longest_edge": None}, do_split_image=split
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("eomt"))


@pytest.fixture(scope="module")
def graph(folder: Path) -> Iterator[Graph]:
    yield from graph_on(folder, network, SPEC)


def their_ids(folder: Path, image: Image) -> np.ndarray:
    from transformers import AutoImageProcessor, EomtForUniversalSegmentation

    processor = AutoImageProcessor.from_pretrained(folder)
    net = EomtForUniversalSegmentation.from_pretrained(folder).eval()
    with torch.inference_mode():
        out = net(**processor(images=image, return_tensors="pt"))
    (ids,) = processor.post_process_semantic_segmentation(out, target_sizes=[image.shape[:2]])
    return ids.numpy() + 1


@pytest.mark.parametrize("size", [(128, 128), (192, 256), (256, 64), (51, 97), (40, 250)])
def test_random_weights_give_transformers_classes_in_the_right_colours(
    graph: Graph, folder: Path, photographs: list[Image], size: tuple[int, int]
) -> None:
    image = photographs[1][: size[0], : size[1]].copy()
    theirs = their_ids(folder, image)
    ours, swapped = (
        findings[SPEC.network] for findings in graph.run([image, image[:, :, ::-1].copy()])
    )
    assert len(np.unique(theirs)) > 3  # the stand-in shows something
    assert (ours.dtype, ours.shape) == (np.uint8, image.shape[:2])
    assert (ours != theirs).mean() < 1e-3
    assert (swapped != theirs).mean() > 0.05
    (painted,) = maps(graph, SPEC, [image])
    assert (painted == palette("ade20k").colours[ours]).all()


@pytest.mark.parametrize("size", [(128, 128), (192, 256), (256, 64), (51, 97)])
def test_it_sees_the_squares_that_transformers_gives_it(
    graph: Graph, folder: Path, photographs: list[Image], size: tuple[int, int]
) -> None:
    from transformers import AutoImageProcessor

    image = photographs[0][: size[0], : size[1]].copy()
    given = AutoImageProcessor.from_pretrained(folder)(images=image, return_tensors="pt")
    net = graph._networks[SPEC.network]
    ours = net.pixel_values(torch.from_numpy(image).permute(2, 0, 1)[None])
    along = 2 if ours.shape[2] > ours.shape[3] else 3
    starts = network._starts(ours.shape[along], SIDE)
    assert starts == [start for _, start, _ in given["patch_offsets"]]
    for start, theirs in zip(starts, given["pixel_values"], strict=True):
        assert (ours.narrow(along, start, SIDE)[0] - theirs).abs().max() < 1e-5


@pytest.mark.parametrize("long", range(512, 2100, 61))
def test_squares_cover_the_long_side(long: int) -> None:
    starts = network._starts(long, 512)
    assert (starts[0], starts[-1]) == (0, long - 512)
    assert (np.diff(starts) <= 512).all()
    assert len(starts) == -(-long // 512)


def test_mixed_sizes_in_any_batch_give_the_same_classes(
    graph: Graph, photographs: list[Image]
) -> None:
    alone, *others = batched(graph, SPEC, mixed(photographs))
    for together in others:
        for one, other in zip(alone, together, strict=True):
            assert (one != other).mean() < 1e-3


@pytest.mark.parametrize(("precision", "share"), [("bf16", 0.1), ("fp16", 0.02)])
def test_lower_precisions_find_nearly_the_same(
    graph: Graph, photographs: list[Image], precision: Precision, share: float
) -> None:
    image = photographs[2][:128, :192].copy()
    low = Graph([SPEC], precision=precision).run([image])[0][SPEC.network]
    full = graph.run([image])[0][SPEC.network]
    assert (low != full).mean() < share


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"labels": 133}, "133 classes, expected ADE20K's 150"),
        ({"split": False}, "panoptic segmentation or for instances, expected one for semantic"),
    ],
)
def test_a_folder_for_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: dict[str, int], message: str
) -> None:
    monkeypatch.setattr(network, "resolve", lambda name: saved(tmp_path, **made))
    with pytest.raises(WeightsError, match=message):
        load(SPEC)


def test_what_only_training_looks_at_may_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(saved(tmp_path) / "model.safetensors")
    monkeypatch.setattr(network, "resolve", lambda name: tmp_path)
    del state["criterion.empty_weight"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    load(SPEC)
    del state["query.weight"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks 1 of Eomt.*tensors, first query\.weight"):
        load(SPEC)


@pytest.fixture
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "resolve", weights.resolve)
    monkeypatch.setenv(weights.CACHE, str(tmp_path / "cache"))
    monkeypatch.delenv(weights.FOLDERS, raising=False)


@pytest.mark.usefixtures("nothing_here")
def test_a_missing_checkpoint_says_how_to_get_it() -> None:
    how = (
        r"Put model\.safetensors, config\.json, preprocessor_config\.json \(tue-mps/ade20k_"
        r"semantic_eomt_large_512 on .*\) in FOLDER/eomt_ade20k_large and set .*=FOLDER"
    )
    with pytest.raises(WeightsError, match=how):
        load(SPEC)
    with pytest.raises(WeightsError, match=how):
        _ = SPEC.network.identity


@pytest.mark.usefixtures("nothing_here")
def test_the_identity_is_that_of_the_weights_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "eomt_ade20k_large") / "model.safetensors"
    monkeypatch.setenv(weights.FOLDERS, str(tmp_path))
    first = SPEC.network.identity
    assert first == hashlib.sha256(path.read_bytes()).hexdigest()
    assert weights.where(SPEC.checkpoint) == path.parent
    assert weights.verify(SPEC.checkpoint) is None
    load(SPEC)
    path.write_bytes(path.read_bytes() + b" ")
    assert SPEC.network.identity != first


def test_specs_travel_and_refuse_what_they_do_not_know() -> None:
    assert pickle.loads(pickle.dumps(SPEC)) == SPEC
    assert json.loads(SPEC.model_dump_json())["checkpoint"] == "eomt_ade20k_large"
    with pytest.raises(ValidationError):
        SegEomtSpec(checkpoint="upernet_convnext_small")
