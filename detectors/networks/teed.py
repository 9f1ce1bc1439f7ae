"""TEED (Soria et al., 2023) with controlnet_aux's layers and state dict; batching is ours."""

import numpy as np
import torch
from jaxtyping import Float32

from detectors.base import Batch, Precision
from detectors.runtimes.on_torch import (
    DTYPES,
    finite,
    quietly,
    ready,
    require_multiple,
    to_device_nchw,
)
from detectors.weights import load_state_dict

_STEP = 4  # pixels a side of the coarsest layer's cells


class Teed:
    """Edges at three scales and their fusion; the map is the sigmoid of the four's mean."""

    def __init__(self, checkpoint: str, device: str, precision: Precision) -> None:
        with quietly():
            from controlnet_aux.teed.ted import TED

            net = TED()
        net.load_state_dict(load_state_dict(checkpoint))
        self._dtype = DTYPES[precision]
        self._device = torch.device(device)
        self._net = ready(net, self._device, self._dtype)

    @torch.inference_mode()
    def __call__(self, images: Batch) -> list[Float32[np.ndarray, "h w"]]:
        """Return the edge probability of each image, 0..1, of the image's size.

        The network is given RGB, 0..255 as it is, as controlnet_aux gives it.

        Raises:
            DetectorError: a side is no multiple of 4 pixels.
        """
        require_multiple(images, _STEP, "TEED")
        sides = self._net(to_device_nchw(images, self._device, self._dtype))
        edges = torch.stack(sides).float().mean(0).sigmoid()  # (B, 1, h, w)
        return list(finite(edges, "TEED")[:, 0].cpu().numpy())
