"""Normals: axes that mean what the convention says, by labels and by NormalBae."""

import pickle
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from pydantic import BaseModel, ValidationError

from detectors.base import Annotation, Image, Refusal
from detectors.errors import DetectorError
from detectors.graph import Graph
from detectors.networks import normal_bae as network
from detectors.normal import BaeNetwork, NormalBaeSpec, NormalLabelsSpec, NormalSpec
from tests.detectors.running import batched, liven, maps, mixed

IMAGE = np.zeros((64, 64, 3), np.uint8)
COLOURS = {  # of a wall that faces (left, up, the viewer), as (red, green, blue)
    "midas": ((127, 127, 255), (127, 255, 127), (255, 127, 127)),
    "diode": ((0, 127, 127), (127, 255, 127), (127, 127, 255)),
    "bae": ((255, 127, 127), (127, 255, 127), (127, 127, 255)),
}
FACING = {  # the same three in a file's own axes
    "right_up_back": ((-1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "left_up_back": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "right_down_forward": ((-1, 0, 0), (0, -1, 0), (0, 0, -1)),
}


def finish(spec: BaseModel, found: np.ndarray) -> Annotation | Refusal:
    return spec.annotate(IMAGE, found, np.random.default_rng(0))


@pytest.mark.parametrize("convention", COLOURS)
def test_a_slope_faces_where_it_falls_away(convention: str) -> None:
    rises = np.linspace(0, 6400, 64, dtype=np.float32)  # nearer by 100 a pixel: very steep
    spec = NormalSpec(convention=convention, background=0)
    nearer_right = finish(spec, np.tile(rises, (64, 1)))
    nearer_down = finish(spec, np.tile(rises[:, None], (1, 64)))
    for result, colour in (
        (nearer_right, COLOURS[convention][0]),
        (nearer_down, COLOURS[convention][1]),
    ):
        assert np.abs(result.map[32, 32].astype(int) - colour).max() <= 2
        assert result.parameters["convention"] == convention


def test_the_background_faces_the_viewer() -> None:
    depth = np.tile(np.linspace(0, 6400, 64, dtype=np.float32), (64, 1))
    result = finish(NormalSpec(convention="bae", background=0.5), depth)
    assert (result.map[:, :32] == (127, 127, 255)).all()
    assert (result.map[:, 33:63, 0] > 250).all()


@pytest.mark.parametrize("convention", COLOURS)
@pytest.mark.parametrize("axes", FACING)
def test_labels_get_the_conventions_colours(axes: str, convention: str) -> None:
    spec = NormalLabelsSpec(axes=axes, convention=convention)
    for facing, colour in zip(FACING[axes], COLOURS[convention], strict=True):
        result = finish(spec, np.full((64, 64, 3), facing, np.float32))
        assert (result.map == colour).all()


def test_labels_of_diode_keep_their_components_by_default() -> None:
    rng = np.random.default_rng(2)
    normals = rng.normal(size=(64, 64, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    result = finish(NormalLabelsSpec(), normals)
    assert np.abs(result.map - (normals * 127.5 + 127.5)).max() <= 1
    assert result.parameters == {
        "convention": "diode",
        "channels": ["right", "up", "back"],
        "unmeasured": 0,
    }


@pytest.mark.parametrize("nothing", [np.nan, 0])
def test_unmeasured_pixels_are_neutral_and_too_many_refuse(nothing: float) -> None:
    normals = np.full((64, 64, 3), (0, 0, 1), np.float32)
    normals[:48] = nothing
    result = finish(NormalLabelsSpec(), normals)
    assert (result.map[:48] == 127).all()
    assert (result.map[48:] == (127, 127, 255)).all()
    assert result.parameters["unmeasured"] == 0.75
    assert finish(NormalLabelsSpec(max_unmeasured=0.5), normals) == Refusal(
        rule="unmeasured", value=0.75, threshold=0.5
    )
    normals[:] = nothing
    assert finish(NormalLabelsSpec(), normals) == Refusal(rule="unmeasured", value=1, threshold=0.9)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (None, "shape None"),
        (np.zeros((64, 64), np.float32), r"shape \(64, 64\), expected .*\(64, 64, 3\)"),
        (np.full((64, 64, 3), 0.5, np.float32), "lengths around 0.866, expected 1"),
        (np.full((64, 64, 3), 200, np.uint8), "lengths around 346"),
    ],
)
def test_labels_that_are_no_normals_are_named(label: np.ndarray | None, message: str) -> None:
    with pytest.raises(DetectorError, match=message):
        finish(NormalLabelsSpec(), label)


@pytest.fixture(scope="module")
def net(controlnet_aux_quiet: None) -> Iterator[torch.nn.Module]:
    """Random weights: a stand-in that sees shapes, but no surfaces, in a picture."""
    torch.manual_seed(0)  # upstream draws the encoder's
    made = network._layers().eval()
    liven(made.decoder)
    wrapped = {f"module.{name}": tensor for name, tensor in made.state_dict().items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "load_state_dict", lambda name: wrapped)
        yield made


@pytest.fixture(scope="module")
def graph(net: torch.nn.Module) -> Graph:
    return Graph([NormalBaeSpec()])


def reference(net: torch.nn.Module, image: Image) -> np.ndarray:
    from controlnet_aux.normalbae import NormalBaeDetector

    side = min(image.shape[:2])
    made = NormalBaeDetector(net)(
        image, detect_resolution=side, image_resolution=side, output_type="np"
    )
    return made.astype(int)


def test_bae_gives_the_references_map_in_the_right_colours(
    net: torch.nn.Module, graph: Graph, red_and_blue: Image
) -> None:
    theirs = reference(net, red_and_blue)
    right, wrong = maps(graph, NormalBaeSpec(), [red_and_blue, red_and_blue[:, :, ::-1].copy()])
    assert theirs.std(axis=(0, 1)).max() > 10
    assert np.abs(right - theirs).max() <= 1
    assert np.abs(wrong - theirs).max() > 20


def test_bae_gives_unit_vectors_in_any_batch(graph: Graph, photographs: list[Image]) -> None:
    alone, *others = batched(graph, NormalBaeSpec(), mixed(photographs))
    for together in others:
        for one, other in zip(alone, together, strict=True):
            assert np.abs(one - other).max() < 1e-3
            assert np.abs(np.linalg.norm(one, axis=2) - 1).max() < 1e-4


def test_bae_stays_close_in_the_lowest_precision(graph: Graph, photographs: list[Image]) -> None:
    image = photographs[2][:64, :64]
    low = Graph([NormalBaeSpec()], precision="bf16").run([image])[0][BaeNetwork()]
    full = graph.run([image])[0][BaeNetwork()]
    assert low.dtype == np.float32
    assert np.abs(low - full).mean() < 0.05


def test_bae_names_a_size_that_it_cannot_take(graph: Graph) -> None:
    found = graph.run([np.zeros((68, 64, 3), np.uint8)])[0][BaeNetwork()]
    assert isinstance(found, DetectorError)
    assert "multiples of 8, got 64x68" in str(found)


@pytest.mark.parametrize("spec", [NormalSpec(), NormalLabelsSpec(), NormalBaeSpec()])
def test_specs_travel_and_refuse_what_they_do_not_know(spec: BaseModel) -> None:
    assert pickle.loads(pickle.dumps(spec)) == spec
    with pytest.raises(ValidationError, match="Extra inputs"):
        type(spec)(treshold=0.4)
    with pytest.raises(ValidationError, match="convention"):
        type(spec)(convention="opengl")
