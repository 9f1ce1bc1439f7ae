"""HED with controlnet_aux's layers and state dict; batching and fusion are ours."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from detectors.base import Batch, Precision
from detectors.runtimes.on_torch import DTYPES, finite, quietly, ready, to_device_nchw
from detectors.weights import load_state_dict


class Hed:
    """Holistically nested edges (Xie and Tu, 2015): five side outputs, fused.

    By the checkpoint's own layer where it has one, as in HED itself and ControlNet 1.0; else as
    their mean, as in ControlNet 1.1.
    """

    def __init__(self, checkpoint: str, device: str, precision: Precision) -> None:
        with quietly():
            from controlnet_aux.hed import ControlNetHED_Apache2

            net = ControlNetHED_Apache2()
        state = load_state_dict(checkpoint)
        fuse = state.pop("fuse.weight", None), state.pop("fuse.bias", None)
        self._weight, self._bias = (None if part is None else part.to(device) for part in fuse)
        net.load_state_dict(state)
        self._dtype = DTYPES[precision]
        self._device = torch.device(device)
        self._net = ready(net, self._device, self._dtype)

    @torch.inference_mode()
    def __call__(self, images: Batch) -> list[Float32[np.ndarray, "h w"]]:
        """Return the edge probability of each image, 0..1, of the image's size."""
        pixels = to_device_nchw(images, self._device, self._dtype)
        logits = self._fused(torch.stack(list(self._logits(pixels))))
        return list(finite(logits, "HED").sigmoid()[:, 0].cpu().numpy())

    def _fused(self, sides: Float[Tensor, "5 b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        if self._weight is None:
            return sides.mean(0)
        return F.conv2d(sides[:, :, 0].movedim(0, 1), self._weight, self._bias)

    def _logits(self, pixels: Float[Tensor, "b 3 h w"]) -> Iterator[Float[Tensor, "b 1 h w"]]:
        for side in self._net(pixels):  # at 1/1, 1/2, 1/4, 1/8 and 1/16 of the size
            yield F.interpolate(
                side.float(), pixels.shape[2:], mode="bilinear", align_corners=False
            )
