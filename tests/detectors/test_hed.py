"""HED: the reference's map on the same weights, in any batch, in the right colours."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from detectors.base import Annotation, Image
from detectors.graph import Graph, load
from detectors.hed import HedSpec, quantised, to_grey
from detectors.networks import hed as network
from tests.weights import need

pytestmark = pytest.mark.usefixtures("controlnet_aux_quiet")


@pytest.fixture
def random_weights(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Put random weights in place of the checkpoint: a stand-in that finds noise, not edges."""
    from controlnet_aux.hed import ControlNetHED_Apache2

    generator = torch.Generator().manual_seed(3)
    state = ControlNetHED_Apache2().state_dict()
    for name, tensor in state.items():
        tensor.normal_(0, 0.05 if "projection" in name else 0.03, generator=generator)
    state["norm"] = torch.tensor([120.0, 115.0, 100.0]).reshape(1, 3, 1, 1)
    monkeypatch.setattr(network, "load_state_dict", lambda name: dict(state))
    return state


def maps(spec: HedSpec, images: list[Image]) -> list[np.ndarray]:
    made = load(spec, "cpu")(images, [np.random.default_rng(0)] * len(images))
    assert all(isinstance(result, Annotation) for result in made)
    return [result.map for result in made]


def reference(state: dict[str, torch.Tensor], image: Image, *, safe: bool) -> np.ndarray:
    from controlnet_aux.hed import ControlNetHED_Apache2, HEDdetector

    net = ControlNetHED_Apache2().eval()
    net.load_state_dict(state)
    side = min(image.shape[:2])
    made = HEDdetector(net)(
        image, detect_resolution=side, image_resolution=side, safe=safe, output_type="np"
    )
    return made[:, :, 0]


@pytest.mark.parametrize("safe", [False, True])
def test_random_weights_give_the_reference(
    random_weights: dict[str, torch.Tensor], photographs: list[Image], safe: bool
) -> None:
    image = photographs[0][:128, :192]
    (ours,) = maps(HedSpec(safe=safe), [image])
    theirs = reference(random_weights, image, safe=safe)
    assert theirs.std() > 10  # the stand-in shows something
    differ = np.abs(ours.astype(int) - theirs)
    assert differ.max() <= 1 or (safe and (differ > 0).mean() < 1e-3)


def test_mixed_sizes_in_any_batch_give_the_same_maps(
    random_weights: dict[str, torch.Tensor], photographs: list[Image]
) -> None:
    sizes = [(64, 64), (64, 128), (64, 64), (128, 64), (64, 64), (64, 128), (64, 64), (64, 64)]
    images = [
        photographs[at % 3][at : at + height, at : at + width]
        for at, (height, width) in enumerate(sizes)
    ]
    spec = HedSpec()
    alone = maps(spec, images)
    for count in (1, 3, 8):
        graph = Graph([spec], device="cpu")
        graph.micro_batch = count
        for at, findings in enumerate(graph.run(images)):
            together = to_grey(findings[spec.network]).astype(int)
            assert np.abs(together - alone[at]).max() <= 1


def test_colours_are_not_swapped(
    random_weights: dict[str, torch.Tensor], red_and_blue: Image
) -> None:
    ours, swapped = maps(HedSpec(), [red_and_blue, red_and_blue[:, :, ::-1].copy()])
    theirs = reference(random_weights, red_and_blue, safe=False).astype(int)
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(swapped - theirs).max() > 20


@pytest.mark.parametrize(("precision", "levels"), [("bf16", 12), ("fp16", 3)])
def test_lower_precisions_stay_close(
    random_weights: dict[str, torch.Tensor], photographs: list[Image], precision: str, levels: int
) -> None:
    image = photographs[1][:64, :64]
    spec = HedSpec()
    low = Graph([spec], precision=precision).run([image])[0][spec.network]
    full = Graph([spec]).run([image])[0][spec.network]
    assert low.dtype == full.dtype == np.float32
    assert np.abs(low - full).mean() * 255 < levels


def test_safe_maps_have_three_levels() -> None:
    edges = np.linspace(0, 1, 1001, dtype=np.float32)[None]
    assert np.unique(to_grey(quantised(edges))).tolist() == [0, 127, 255]


def test_the_authors_weights_give_the_reference(kodak: Callable[[int], list[Image]]) -> None:
    state = need("hed_bsds500")
    for image in (picture[:256, :384] for picture in kodak(2)):
        (ours,) = maps(HedSpec(), [image])
        theirs = reference(state, image, safe=False).astype(int)
        assert np.abs(ours - theirs).max() <= 1
        assert 0.02 < (theirs > 127).mean() < 0.4  # edges, neither blank nor full
