"""PiDiNet (Su et al., 2021) with controlnet_aux's layers; its differences as plain convolutions.

A pixel difference convolution is linear, so its weights can be told apart from the differences that
they are of: what it sums is what a plain convolution with other weights sums (section 3.2 there).
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from detectors.base import Batch, Precision
from detectors.runtimes.on_torch import (
    DTYPES,
    finite,
    quietly,
    ready,
    to_device_nchw,
    without_wrapper,
)
from detectors.weights import load_state_dict

_WIDTH, _DILATED = 60, 24  # channels of the first block, and of what each block hands on
_KINDS = "carv4"  # of convolution, in the order of layers: central, angular, radial, vanilla
_BLOCKS = (3, 4, 4, 4)

_CLOCKWISE = [3, 0, 1, 6, 4, 2, 7, 8, 5]  # of nine neighbours in rows: who comes before each
_OUTER = [0, 2, 4, 10, 14, 20, 22, 24]  # of a square of five, the ends of eight rays
_INNER = [6, 7, 8, 11, 13, 16, 17, 18]  # and where they pass


class Pidinet:
    """Edges at four scales, joined by the network's own layer."""

    def __init__(self, checkpoint: str, device: str, precision: Precision) -> None:
        with quietly():
            from controlnet_aux.pidi.model import PiDiNet, nets

            kinds = list(nets[_KINDS].values())
            net = PiDiNet(_WIDTH, kinds, dil=_DILATED, sa=True, convert=True)
        net.load_state_dict(plain(without_wrapper(load_state_dict(checkpoint)), kinds))
        self._dtype = DTYPES[precision]
        self._device = torch.device(device)
        self._net = ready(net, self._device, self._dtype)

    @torch.inference_mode()
    def __call__(self, images: Batch) -> list[Float32[np.ndarray, "h w"]]:
        """Return the edge probability of each image, 0..1, of the image's size."""
        pixels = to_device_nchw(images, self._device, self._dtype)
        edges = self._net(pixels.flip(1) / 255)[-1]  # ControlNet's annotator gives it BGR
        return list(finite(edges, "PiDiNet").float()[:, 0].cpu().numpy())


def plain(state: dict[str, Tensor], kinds: list[str]) -> dict[str, Tensor]:
    """Return a state dict whose convolutions are plain ones.

    Args:
        state: of the network as it was trained.
        kinds: of its layers: ``cd``, ``ad``, ``rd``, ``cv``.
    """
    names = ["init_block.weight"] + [
        f"block{block}_{layer}.conv1.weight"
        for block, count in enumerate(_BLOCKS, start=1)
        for layer in range(1, count + 1)
    ]
    made = {name: _CONVERTED[kind](state[name]) for name, kind in zip(names, kinds, strict=True)}
    return state | made


def _central(weight: Float[Tensor, "o i 3 3"]) -> Float[Tensor, "o i 3 3"]:
    """Each neighbour less the pixel itself."""
    made = weight.clone()
    made[:, :, 1, 1] -= weight.sum((2, 3))
    return made


def _angular(weight: Float[Tensor, "o i 3 3"]) -> Float[Tensor, "o i 3 3"]:
    """Each neighbour less the next one clockwise."""
    flat = weight.flatten(2)
    return (flat - flat[:, :, _CLOCKWISE]).view_as(weight)


def _radial(weight: Float[Tensor, "o i 3 3"]) -> Float[Tensor, "o i 5 5"]:
    """On eight rays, the pixel at distance two less the one between."""
    made = weight.new_zeros(*weight.shape[:2], 25)
    made[:, :, _OUTER] = weight.flatten(2)[:, :, 1:]
    made[:, :, _INNER] = -weight.flatten(2)[:, :, 1:]
    return made.view(*weight.shape[:2], 5, 5)


_CONVERTED: dict[str, Callable[[Tensor], Tensor]] = {
    "cd": _central,
    "ad": _angular,
    "rd": _radial,
    "cv": lambda weight: weight,
}
