"""NormalBae with controlnet_aux's layers and state dict; batching is ours."""

from types import SimpleNamespace

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn

from detectors.base import Batch, Precision
from detectors.runtimes.on_torch import (
    DTYPES,
    finite,
    quietly,
    ready,
    require_multiple,
    to_device_nchw,
    without_wrapper,
)
from detectors.weights import load_state_dict

_STEP = 8  # predictions start at 1/8 of the size, and are doubled three times
_MEAN = (0.485, 0.456, 0.406)  # ImageNet's
_DEVIATION = (0.229, 0.224, 0.225)


class NormalBae:
    """Normals from one image (Bae et al., 2021), trained on ScanNet."""

    def __init__(self, checkpoint: str, device: str, precision: Precision) -> None:
        net = _layers()
        net.load_state_dict(without_wrapper(load_state_dict(checkpoint)))
        self._dtype = DTYPES[precision]
        self._device = torch.device(device)
        self._net = ready(net, self._device, self._dtype)
        self._mean = self._channels(_MEAN)
        self._deviation = self._channels(_DEVIATION)

    @torch.inference_mode()
    def __call__(self, images: Batch) -> list[Float32[np.ndarray, "h w 3"]]:
        """Return the normals of each image, of its size: unit vectors (left, up, to the viewer).

        Raises:
            DetectorError: a side is no multiple of 8 pixels.
        """
        require_multiple(images, _STEP, "NormalBae")
        pixels = to_device_nchw(images, self._device, torch.float32) / 255
        scaled = ((pixels - self._mean) / self._deviation).to(self._dtype)
        finest = self._net(scaled)[0][-1]  # (B, 4, h, w): a vector and its certainty
        normals = finite(finest[:, :3].float(), "NormalBae").permute(0, 2, 3, 1)
        return list(normals.cpu().numpy())

    def _channels(self, values: tuple[float, ...]) -> torch.Tensor:
        return torch.tensor(values, device=self._device).reshape(1, -1, 1, 1)


def _layers() -> nn.Module:
    """Build the layers; upstream does it by torch.hub, from a folder in its own package."""
    with quietly():
        from controlnet_aux.normalbae.nets.NNET import NNET

        net: nn.Module = NNET(
            SimpleNamespace(architecture="BN", sampling_ratio=0.4, importance_ratio=0.7)
        )
    return net
