"""M-LSD: the reference's lines on the same weights, in any batch, in the right colours."""

import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from detectors.base import Annotation, Image, Precision, Refusal
from detectors.errors import DetectorError
from detectors.graph import Graph, load
from detectors.mlsd import MlsdNetwork, MlsdSpec
from detectors.networks import mlsd as network
from tests.detectors.running import batched, liven, mixed
from tests.weights import need


@pytest.fixture(scope="module")
def tiny(controlnet_aux_quiet: None) -> torch.nn.Module:
    """The authors' small net for the reference; skips where it is absent."""
    net = network._layers("mlsd_tiny").eval()
    net.load_state_dict(need("mlsd_tiny"))
    return net


@pytest.fixture(scope="module")
def large(controlnet_aux_quiet: None) -> torch.nn.Module:
    """Random weights in the large net: a stand-in that finds lines in noise."""
    net = liven(network._layers("mlsd_large").eval())
    net.block23.conv3.bias.data[7] = 16  # of the centres' logits, around -16 in photographs
    return net


@pytest.fixture
def random_large(large: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    monkeypatch.setattr(network, "load_state_dict", lambda name: large.state_dict())
    return large


def reference(
    net: torch.nn.Module, image: Image, side: int | None, score: float = 0.1
) -> np.ndarray:
    from controlnet_aux.mlsd.utils import pred_lines

    shape = list(image.shape[:2]) if side is None else [side, side]
    with torch.no_grad():
        return pred_lines(image, net, shape, score, 0.1)


def found(spec: MlsdSpec, image: Image) -> tuple[np.ndarray, np.ndarray]:
    (result,) = load(spec, "cpu")([image], [np.random.default_rng(0)])
    assert isinstance(result, Annotation)
    return np.array(result.parameters["lines"]).reshape(-1, 5), result.map


def assert_same_lines(ours: np.ndarray, theirs: np.ndarray, pixels: float = 1) -> None:
    assert len(ours) == len(theirs)
    apart = np.abs(ours[:, None, :4] - theirs[None]).max(axis=2)
    assert apart.min(axis=0).max() <= pixels
    assert apart.min(axis=1).max() <= pixels


@pytest.mark.parametrize("side", [None, 512])
def test_the_authors_weights_give_the_references_lines(
    tiny: torch.nn.Module, kodak: Callable[[int], list[Image]], side: int | None
) -> None:
    for image in kodak(5)[::4]:
        lines, _ = found(MlsdSpec(checkpoint="mlsd_tiny", side=side), image)
        assert len(lines) > 10
        assert_same_lines(lines, reference(tiny, image, side))


def test_the_map_is_the_references(
    tiny: torch.nn.Module, kodak: Callable[[int], list[Image]]
) -> None:
    from controlnet_aux.mlsd import MLSDdetector

    image = kodak(1)[0]
    _, drawn = found(MlsdSpec(checkpoint="mlsd_tiny"), image)
    theirs = MLSDdetector(tiny)(image, output_type="np")[:, :, 0]
    assert drawn.shape == image.shape[:2]
    assert set(np.unique(drawn)) == {0, 255}
    assert (drawn != theirs).mean() <= 1e-4  # an end that rounds to the next pixel


def test_the_large_net_gives_the_references_lines(
    random_large: torch.nn.Module, photographs: list[Image]
) -> None:
    image = photographs[0][:128, :192]
    lines, _ = found(MlsdSpec(score=0.5), image)
    assert len(lines) > 10
    assert_same_lines(lines, reference(random_large, image, None, score=0.5))


def test_mixed_sizes_in_any_batch_give_the_same_lines(
    random_large: torch.nn.Module, photographs: list[Image]
) -> None:
    spec = MlsdSpec()
    graph = Graph([spec])
    images = mixed(photographs)
    alone, *others = batched(graph, spec, images)
    for together in others:
        for one, other in zip(alone, together, strict=True):
            assert np.abs(one[:50] - other[:50]).max() < 0.01  # pixels of half the size


def test_colours_are_not_swapped(random_large: torch.nn.Module, red_and_blue: Image) -> None:
    spec = MlsdSpec(score=0.5)
    lines, _ = found(spec, red_and_blue)
    swapped, _ = found(spec, red_and_blue[:, :, ::-1].copy())
    theirs = reference(random_large, red_and_blue, None, score=0.5)
    assert_same_lines(lines, theirs)
    with pytest.raises(AssertionError):
        assert_same_lines(swapped, theirs)


@pytest.mark.parametrize(("precision", "pixels"), [("fp16", 1), ("bf16", 4)])
def test_lower_precisions_stay_close(
    tiny: torch.nn.Module,
    kodak: Callable[[int], list[Image]],
    precision: Precision,
    pixels: float,
) -> None:
    image = kodak(1)[0][:256, :256]
    spec = MlsdSpec(checkpoint="mlsd_tiny")
    low, full = (
        Graph([spec], precision=to).run([image])[0][spec.network] for to in (precision, "fp32")
    )
    sure = full[full[:, 4] > 0.3]
    apart = np.abs(sure[:, None, :4] - low[None, :, :4]).max(axis=2).min(axis=1)
    assert len(sure) > 5
    assert np.median(apart) < pixels


LINES = np.array([[10, 10, 50, 10, 0.9], [5, 20, 5.04, 20, 0.8], [0, 0, 60, 60, 0.05]])


def finish(spec: MlsdSpec, lines: np.ndarray = LINES) -> Annotation | Refusal:
    return spec.annotate(np.zeros((128, 128, 3), np.uint8), lines, np.random.default_rng(0))


def test_thresholds_choose_among_the_same_findings() -> None:
    both = finish(MlsdSpec(score=0.01, distance=10))
    assert both.parameters["lines"] == [[20, 20, 100, 20, 0.9], [0, 0, 120, 120, 0.05]]
    assert finish(MlsdSpec()).parameters["lines"] == [[20, 20, 100, 20, 0.9]]
    assert len(finish(MlsdSpec(top_k=1, score=0)).parameters["lines"]) == 1
    assert LINES[0, 0] == 10  # shared by specs: not changed
    assert MlsdSpec(score=0.5, top_k=9).network == MlsdSpec().network
    assert MlsdSpec(side=512).network != MlsdSpec().network


def test_a_square_input_is_scaled_back_to_the_image() -> None:
    image = np.zeros((256, 1024, 3), np.uint8)
    result = MlsdSpec(side=512).annotate(image, LINES[:1], np.random.default_rng(0))
    assert result.parameters["lines"] == [[40, 10, 200, 10, 0.9]]
    assert result.map.shape == (256, 1024)
    assert result.map[10, 40:201].all()
    assert result.map.astype(bool).sum() == 161


def test_no_line_is_a_black_map_unless_lines_are_asked_for() -> None:
    none = finish(MlsdSpec(), LINES[:0])
    assert isinstance(none, Annotation)
    assert not none.map.any()
    refused = finish(MlsdSpec(min_lines=17), LINES)
    assert isinstance(refused, Refusal)
    assert (refused.rule, refused.value, refused.threshold) == ("lines", 1, 17)
    assert len(refused.parameters["lines"]) == 1


def test_a_size_that_the_network_cannot_take_is_named(random_large: torch.nn.Module) -> None:
    with pytest.raises(DetectorError, match="multiples of 16, got 72x64"):
        found(MlsdSpec(), np.zeros((64, 72, 3), np.uint8))


def test_values_that_are_not_finite_are_no_black_map(random_large: torch.nn.Module) -> None:
    net = MlsdNetwork().load("cpu", "fp32")
    net._net.block23.conv3.bias.fill_(float("nan"))
    with pytest.raises(DetectorError, match="not finite"):
        net(np.zeros((1, 64, 64, 3), np.uint8))


def test_specs_travel_and_refuse_what_they_do_not_know() -> None:
    spec = MlsdSpec(score=0.2)
    assert pickle.loads(pickle.dumps(spec)) == spec
    with pytest.raises(ValidationError, match="Extra inputs"):
        MlsdSpec(scores=0.2)
