"""TEED: the reference's map on the same weights."""

import numpy as np
import pytest
import torch

from detectors.base import Image
from detectors.errors import DetectorError
from detectors.graph import Graph
from detectors.networks import teed as network
from detectors.soft_edges import to_grey
from detectors.teed import TeedSpec
from tests.detectors.running import batched, maps, mixed

pytestmark = pytest.mark.usefixtures("controlnet_aux_quiet")


@pytest.fixture
def random_weights(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Put random weights in place of the checkpoint: a stand-in that finds noise, not edges."""
    from controlnet_aux.teed.ted import TED

    generator = torch.Generator().manual_seed(3)
    state = TED().state_dict()
    for name, tensor in state.items():
        fan = max(1, tensor[0].numel())
        level = 2.0 / fan**0.5 if name.endswith("weight") else 0.3
        tensor.normal_(0, level, generator=generator)
    state["block_1.conv1.weight"] /= 20  # pixels are 0..255
    monkeypatch.setattr(network, "load_state_dict", lambda _: state)
    return state


def reference(state: dict[str, torch.Tensor], image: Image, *, safe: bool = False) -> np.ndarray:
    from controlnet_aux.teed import TEEDdetector
    from controlnet_aux.teed.ted import TED

    net = TED().eval()
    net.load_state_dict(state)
    side = min(image.shape[:2])
    steps = 2 if safe else 0
    made = TEEDdetector(net)(image, detect_resolution=side, safe_steps=steps, output_type="np")
    return made[:, :, 0].astype(int)


@pytest.mark.parametrize("safe", [False, True])
def test_random_weights_give_the_reference(
    random_weights: dict[str, torch.Tensor], photographs: list[Image], safe: bool
) -> None:
    spec = TeedSpec(safe=safe)
    for image in (photographs[0][:128, :192], photographs[1][:64, :64]):
        (ours,) = maps(Graph([spec]), spec, [image])
        theirs = reference(random_weights, image, safe=safe)
        assert theirs.std() > 10  # the stand-in shows something
        differ = np.abs(ours.astype(int) - theirs)
        assert differ.max() <= 1 or (safe and (differ > 0).mean() < 1e-3)


def test_mixed_sizes_in_any_batch_give_the_same_maps(
    random_weights: dict[str, torch.Tensor], photographs: list[Image]
) -> None:
    spec, images = TeedSpec(), mixed(photographs)
    alone, *others = batched(Graph([spec]), spec, images)
    for found in others:
        for one, other in zip(alone, found, strict=True):
            assert np.abs(to_grey(one).astype(int) - to_grey(other)).max() <= 1


def test_colours_are_not_swapped(
    random_weights: dict[str, torch.Tensor], red_and_blue: Image
) -> None:
    spec = TeedSpec()
    ours, swapped = maps(Graph([spec]), spec, [red_and_blue, red_and_blue[:, :, ::-1].copy()])
    theirs = reference(random_weights, red_and_blue)
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(swapped - theirs).max() > 20


def test_a_side_that_does_not_fit_is_told(random_weights: dict[str, torch.Tensor]) -> None:
    spec = TeedSpec()
    (found,) = Graph([spec]).run([np.zeros((66, 64, 3), np.uint8)])
    assert isinstance(found[spec.network], DetectorError)
