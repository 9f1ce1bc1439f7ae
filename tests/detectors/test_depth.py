"""MiDaS: the reference's depth and normals on the same weights, in any batch."""

import pickle
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from detectors.base import Annotation, Image, Precision, Refusal
from detectors.depth import DepthSpec, MidasNetwork, nearness
from detectors.errors import DetectorError
from detectors.graph import Graph
from detectors.networks import midas as network
from detectors.normal import NormalSpec
from tests.detectors.running import batched, maps, mixed

pytestmark = pytest.mark.usefixtures("controlnet_aux_quiet")


@pytest.fixture(scope="module")
def net(controlnet_aux_quiet: None) -> Iterator[torch.nn.Module]:
    """Random weights: a stand-in that sees shapes, but no depth, in a picture."""
    from controlnet_aux.midas.midas.dpt_depth import DPTDepthModel

    from detectors.runtimes.on_torch import quietly

    torch.manual_seed(0)
    with quietly():
        made = DPTDepthModel(backbone="vitb_rn50_384", non_negative=True).eval()
    made.scratch.output_conv[4].weight.data.abs_().mul_(100)  # as it is made, it gives zeros
    made.scratch.output_conv[4].bias.data.fill_(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "load_state_dict", lambda name: made.state_dict())
        yield made


@pytest.fixture(scope="module")
def graph(net: torch.nn.Module) -> Graph:
    return Graph([DepthSpec(), NormalSpec()])


def reference(
    net: torch.nn.Module, image: Image, background: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    from controlnet_aux.midas import MidasDetector

    side = min(image.shape[:2])
    depth, normals = MidasDetector(net)(
        image,
        bg_th=background,
        depth_and_normal=True,
        detect_resolution=side,
        image_resolution=side,
    )
    return depth[:, :, 0].astype(int), normals.astype(int)


def test_depth_and_normals_share_one_network(graph: Graph) -> None:
    assert graph.networks == (MidasNetwork(),)


def test_random_weights_give_the_references_raw_depth(
    net: torch.nn.Module, graph: Graph, photographs: list[Image]
) -> None:
    image = photographs[0][:64, :128]
    with torch.inference_mode():
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
        theirs = net(pixels)[0].numpy()
    ours = graph.run([image])[0][MidasNetwork()]
    assert theirs.std() > 1  # the stand-in shows something
    assert ours.dtype == np.float32
    assert ours.shape == image.shape[:2]
    assert (np.abs(ours - theirs) / theirs).max() < 1e-4


@pytest.mark.parametrize("background", [0.1, 0.4])
def test_random_weights_give_the_references_maps(
    net: torch.nn.Module, graph: Graph, photographs: list[Image], background: float
) -> None:
    image = photographs[1][:64, :128]
    depth, normals = reference(net, image, background)
    (ours,) = maps(graph, DepthSpec(), [image])
    assert np.abs(ours - depth).max() <= 1
    (ours,) = maps(graph, NormalSpec(background=background), [image])
    assert normals.std(axis=(0, 1)).min() > 10
    differ = np.abs(ours - normals).max(axis=2)
    # a pixel whose nearness is the threshold to the last bit may fall to either side
    assert (differ > 1).mean() < 1e-4


def test_mixed_sizes_in_any_batch_give_the_same_depth(
    graph: Graph, photographs: list[Image]
) -> None:
    alone, *others = batched(graph, DepthSpec(), mixed(photographs))
    for together in others:
        for one, other in zip(alone, together, strict=True):
            assert (np.abs(one - other) / one).max() < 1e-5


def test_colours_are_not_swapped(net: torch.nn.Module, graph: Graph, red_and_blue: Image) -> None:
    swapped = red_and_blue[:, :, ::-1].copy()
    for spec, theirs in zip(
        (DepthSpec(), NormalSpec(background=0.1)), reference(net, red_and_blue), strict=True
    ):
        right, wrong = maps(graph, spec, [red_and_blue, swapped])
        assert np.abs(right - theirs).max() <= 1
        assert np.abs(wrong - theirs).max() > 20


@pytest.mark.parametrize(("precision", "error"), [("bf16", 0.06), ("fp16", 0.01)])
def test_lower_precisions_stay_close(
    graph: Graph, photographs: list[Image], precision: Precision, error: float
) -> None:
    image = photographs[1][:64, :64]
    low = Graph([DepthSpec()], precision=precision).run([image])[0][MidasNetwork()]
    full = graph.run([image])[0][MidasNetwork()]
    assert low.dtype == np.float32
    assert np.abs(low - full).mean() / np.ptp(full) < error


def test_nothing_of_a_batch_stays_in_memory(graph: Graph, photographs: list[Image]) -> None:
    from controlnet_aux.midas.midas import vit

    graph.run([photographs[0][:64, :64]])
    assert not vit.activations


def test_a_size_that_the_network_cannot_take_is_named(graph: Graph) -> None:
    found = graph.run([np.zeros((80, 64, 3), np.uint8)])[0][MidasNetwork()]
    assert isinstance(found, DetectorError)
    assert "multiples of 32, got 64x80" in str(found)


def finish(spec: DepthSpec, depth: np.ndarray) -> Annotation | Refusal:
    image = np.zeros((*depth.shape, 3), np.uint8)
    return spec.annotate(image, depth.astype(np.float32), np.random.default_rng(0))


def test_depth_is_stretched_in_8_or_16_bits() -> None:
    ramp = np.linspace(100, 900, 64 * 64).reshape(64, 64)
    grey = finish(DepthSpec(), ramp)
    assert (grey.map.dtype, grey.map.min(), grey.map.max()) == (np.uint8, 0, 255)
    fine = finish(DepthSpec(bits=16), ramp)
    assert (fine.map.dtype, fine.map.min(), fine.map.max()) == (np.uint16, 0, 65535)
    assert len(np.unique(fine.map)) == 64 * 64
    ends = fine.parameters
    assert ends == {"black": 100, "white": 900}
    back = ends["black"] + fine.map / 65535 * (ends["white"] - ends["black"])
    assert np.abs(back - ramp).max() < 0.02


@pytest.mark.parametrize("level", [0, 3.5, 4000])
@pytest.mark.parametrize("spec", [DepthSpec(), DepthSpec(bits=16), NormalSpec()])
def test_a_flat_depth_is_refused(spec: DepthSpec | NormalSpec, level: float) -> None:
    refused = finish(spec, np.full((64, 64), level))
    assert isinstance(refused, Refusal)
    assert (refused.rule, refused.value) == ("flat_depth", 0)
    assert refused.threshold > 0


def test_a_finding_is_not_changed_by_one_of_its_specs() -> None:
    depth = np.linspace(1, 9, 64, dtype=np.float32).reshape(8, 8)
    before = depth.copy()
    nearness(depth)
    finish(DepthSpec(), depth)
    finish(NormalSpec(), depth)
    assert (depth == before).all()


def test_specs_travel_and_refuse_what_they_do_not_know() -> None:
    spec = DepthSpec(bits=16)
    assert pickle.loads(pickle.dumps(spec)) == spec
    for wrong in ({"bits": 12}, {"bit": 8}):
        with pytest.raises(ValidationError):
            DepthSpec(**wrong)
