"""UperNet with transformers' layers and its checkpoints' folders; batching is ours."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from detectors.base import Batch, Precision
from detectors.runtimes.on_torch import DTYPES, finite, ready, to_device_nchw
from detectors.runtimes.on_transformers import (
    best_classes,
    from_folder,
    pixel_values,
    require_ade20k,
)
from detectors.weights import resolve


class UperNet:
    """Unified perceptual parsing (Xiao et al., 2018), as transformers has it."""

    def __init__(self, checkpoint: str, device: str, precision: Precision) -> None:
        folder = resolve(checkpoint)
        net, self._how = from_folder(
            folder, "UperNetForSemanticSegmentation", trains="auxiliary_head"
        )
        require_ade20k(net, folder)
        self._dtype = DTYPES[precision]
        self._device = torch.device(device)
        self._net = ready(net, self._device, self._dtype)

    @torch.inference_mode()
    def __call__(self, images: Batch) -> list[UInt8[np.ndarray, "h w"]]:
        """Return the class of each pixel, as ADE20K's annotations number them: 1..150."""
        pixels = self.pixel_values(to_device_nchw(images, self._device, torch.uint8))
        logits = finite(self._net(pixels).logits, "UperNet")  # (B, 150, side, side)
        return best_classes((one.float() for one in logits), images.shape[1:3])

    def pixel_values(self, pixels: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s t"]:
        """Resize and normalise as the folder's image processor says, on the device."""
        how = self._how
        height, width = pixels.shape[2:]
        size = (how.size["height"], how.size["width"]) if how.do_resize else (height, width)
        return pixel_values(pixels, how, size, self._dtype)
