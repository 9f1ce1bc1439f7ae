"""Anime2Sketch: the reference's drawing on the same weights, of the image's own size."""

import pickle
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from detectors.base import Image, Precision
from detectors.graph import Graph
from detectors.lineart_anime import Anime2SketchNetwork, LineartAnimeSpec
from detectors.networks import anime2sketch as network
from tests.detectors.running import batched, maps

SPEC = LineartAnimeSpec()


@pytest.fixture(scope="module")
def net(controlnet_aux_quiet: None) -> Iterator[torch.nn.Module]:
    """Random weights: a stand-in that smears a picture."""
    torch.manual_seed(0)
    made = network._layers().eval()
    wrapped = {f"module.{name}": tensor for name, tensor in made.state_dict().items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "load_state_dict", lambda name: wrapped)
        yield made


@pytest.fixture(scope="module")
def graph(net: torch.nn.Module) -> Graph:
    return Graph([SPEC])


def reference(net: torch.nn.Module, image: Image) -> np.ndarray:
    from controlnet_aux.lineart_anime import LineartAnimeDetector

    side = min(image.shape[:2])
    made = LineartAnimeDetector(net)(
        image, detect_resolution=side, image_resolution=side, output_type="np"
    )
    return made[:, :, 0].astype(int)


@pytest.mark.parametrize("size", [(256, 256), (128, 192)])
def test_random_weights_give_the_reference(
    net: torch.nn.Module, graph: Graph, photographs: list[Image], size: tuple[int, int]
) -> None:
    image = photographs[0][: size[0], : size[1]].copy()
    theirs = reference(net, image)
    (ours,) = maps(graph, SPEC, [image])
    assert theirs.std() > 10  # the stand-in shows something
    assert ours.shape == size
    assert np.abs(ours - theirs).max() <= 1


def test_mixed_sizes_in_any_batch_give_the_same_map(graph: Graph, photographs: list[Image]) -> None:
    images = [photographs[0], photographs[1][:128, :192], photographs[2]]
    alone, *others = batched(graph, SPEC, images)
    for together in others:
        for one, other in zip(alone, together, strict=True):
            assert np.abs(one.astype(int) - other).max() <= 1


def test_colours_are_not_swapped(net: torch.nn.Module, graph: Graph, red_and_blue: Image) -> None:
    theirs = reference(net, red_and_blue)
    right, wrong = maps(graph, SPEC, [red_and_blue, red_and_blue[:, :, ::-1].copy()])
    assert np.abs(right - theirs).max() <= 1
    assert np.abs(wrong - theirs).max() > 20


@pytest.mark.parametrize(("precision", "levels"), [("bf16", 8), ("fp16", 2)])
def test_lower_precisions_stay_close(
    photographs: list[Image],
    monkeypatch: pytest.MonkeyPatch,
    precision: Precision,
    levels: float,
) -> None:
    """With an eighth of the channels: a CPU takes long over halves."""
    from controlnet_aux.lineart_anime import UnetGenerator

    norm = partial(torch.nn.InstanceNorm2d, affine=False, track_running_stats=False)
    narrow = UnetGenerator(3, 1, 8, 8, norm_layer=norm).eval()
    monkeypatch.setattr(network, "_layers", lambda: narrow)
    monkeypatch.setattr(network, "load_state_dict", lambda name: narrow.state_dict())
    network_ = Anime2SketchNetwork()
    low = Graph([SPEC], precision=precision).run(photographs[:1])[0][network_]
    full = Graph([SPEC]).run(photographs[:1])[0][network_]
    assert np.abs(low.astype(int) - full).mean() < levels


def test_specs_travel_and_refuse_what_they_do_not_know() -> None:
    spec = LineartAnimeSpec(condition="lineart")
    assert pickle.loads(pickle.dumps(spec)) == spec
    with pytest.raises(ValidationError, match="Extra inputs"):
        LineartAnimeSpec(coarse=True)
