"""PiDiNet: the reference's map on the same weights, although its convolutions are plain ones."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from detectors.base import Image
from detectors.graph import Graph
from detectors.networks import pidinet as network
from detectors.pidinet import PidinetSpec
from detectors.soft_edges import to_grey
from tests.detectors.running import batched, liven, maps, mixed
from tests.weights import need

pytestmark = pytest.mark.usefixtures("controlnet_aux_quiet")


@pytest.fixture
def random_weights(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Put random weights in place of the checkpoint: a stand-in that finds noise, not edges."""
    from controlnet_aux.pidi.model import pidinet

    generator = torch.Generator().manual_seed(7)
    state = liven(pidinet()).state_dict()
    for name, tensor in state.items():  # its own convolutions are of no class that `liven` knows
        if name == "init_block.weight" or name.endswith("conv1.weight"):
            tensor.normal_(0, 0.3, generator=generator)
    monkeypatch.setattr(
        network, "load_state_dict", lambda _: {f"module.{name}": one for name, one in state.items()}
    )
    return state


def reference(state: dict[str, torch.Tensor], image: Image, *, safe: bool = False) -> np.ndarray:
    from controlnet_aux.pidi import PidiNetDetector
    from controlnet_aux.pidi.model import pidinet

    net = pidinet().eval()
    net.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
    side = min(image.shape[:2])
    made = PidiNetDetector(net)(
        image, detect_resolution=side, image_resolution=side, safe=safe, output_type="np"
    )
    return made[:, :, 0].astype(int)


@pytest.mark.parametrize("safe", [False, True])
def test_random_weights_give_the_reference(
    random_weights: dict[str, torch.Tensor], photographs: list[Image], safe: bool
) -> None:
    spec = PidinetSpec(safe=safe)
    for image in (photographs[0][:128, :192], photographs[1][:64, :64]):
        (ours,) = maps(Graph([spec]), spec, [image])
        theirs = reference(random_weights, image, safe=safe)
        assert theirs.std() > 10  # the stand-in shows something
        differ = np.abs(ours.astype(int) - theirs)
        assert differ.max() <= 1 or (safe and (differ > 0).mean() < 1e-3)


def test_mixed_sizes_in_any_batch_give_the_same_maps(
    random_weights: dict[str, torch.Tensor], photographs: list[Image]
) -> None:
    spec, images = PidinetSpec(), mixed(photographs)
    alone, *others = batched(Graph([spec]), spec, images)
    for found in others:
        for one, other in zip(alone, found, strict=True):
            assert np.abs(to_grey(one).astype(int) - to_grey(other)).max() <= 1


def test_colours_are_not_swapped(
    random_weights: dict[str, torch.Tensor], red_and_blue: Image
) -> None:
    spec = PidinetSpec()
    ours, swapped = maps(Graph([spec]), spec, [red_and_blue, red_and_blue[:, :, ::-1].copy()])
    theirs = reference(random_weights, red_and_blue)
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(swapped - theirs).max() > 20


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precisions_stay_close(photographs: list[Image], precision: str) -> None:
    need("pidinet")
    image, spec = photographs[1][:128, :128], PidinetSpec()
    low = Graph([spec], precision=precision).run([image])[0][spec.network]
    full = Graph([spec]).run([image])[0][spec.network]
    assert low.dtype == full.dtype == np.float32
    assert np.abs(low - full).mean() * 255 < 3


def test_trained_weights_give_the_reference(kodak: Callable[[int], list[Image]]) -> None:
    state, spec = need("pidinet"), PidinetSpec()
    for image in (picture[:256, :384] for picture in kodak(2)):
        (ours,) = maps(Graph([spec]), spec, [image])
        theirs = reference(state, image)
        assert np.abs(ours - theirs).max() <= 1
        assert 0.01 < (theirs > 127).mean() < 0.4  # edges, neither blank nor full
