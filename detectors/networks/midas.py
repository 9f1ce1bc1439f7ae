"""MiDaS dpt_hybrid with controlnet_aux's layers and state dict; batching is ours."""

import threading

import numpy as np
import torch
from jaxtyping import Float32

from detectors.base import Batch, Precision
from detectors.runtimes.on_torch import (
    DTYPES,
    finite,
    keep_fp32,
    quietly,
    ready,
    require_multiple,
    to_device_nchw,
)
from detectors.weights import load_state_dict

_STEP = 32  # the coarsest of the layers that are added to each other has 1/32 of the size

# Upstream's hooks write what they catch into one dict that all instances share.
_CAUGHT = threading.Lock()


class Midas:
    """Depth from one image (Ranftl et al., 2021), up to an unknown scale and offset."""

    def __init__(self, checkpoint: str, device: str, precision: Precision) -> None:
        with quietly():
            from controlnet_aux.midas.midas.dpt_depth import DPTDepthModel

            net = DPTDepthModel(backbone="vitb_rn50_384", non_negative=True)
        self._caught = net.pretrained.activations
        net.load_state_dict(load_state_dict(checkpoint))
        self._dtype = DTYPES[precision]
        self._device = torch.device(device)
        self._net = ready(net, self._device, self._dtype)
        keep_fp32(self._net.get_submodule("scratch.output_conv.4"))

    @torch.inference_mode()
    def __call__(self, images: Batch) -> list[Float32[np.ndarray, "h w"]]:
        """Return the inverse depth of each image, of the image's size: the nearer, the larger.

        Raises:
            DetectorError: a side is no multiple of 32 pixels.
        """
        require_multiple(images, _STEP, "MiDaS")
        pixels = to_device_nchw(images, self._device, self._dtype) / 127.5 - 1
        with _CAUGHT:
            depth = self._net(pixels)  # (B, h, w)
            self._caught.clear()  # it would hold the memory until the next batch
        return list(finite(depth.float(), "MiDaS").cpu().numpy())
