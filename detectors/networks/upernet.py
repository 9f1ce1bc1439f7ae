"""UperNet with transformers' layers and its checkpoints' folders; batching is ours."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from detectors.base import Batch, Precision
from detectors.errors import WeightsError
from detectors.palettes import ADE20K_CLASSES
from detectors.runtimes.on_torch import DTYPES, finite, ready, to_device_nchw
from detectors.runtimes.on_transformers import from_folder, pixel_values
from detectors.weights import resolve


class UperNet:
    """Unified perceptual parsing (Xiao et al., 2018), as transformers has it."""

    def __init__(self, checkpoint: str, device: str, precision: Precision) -> None:
        folder = resolve(checkpoint)
        net, self._how = from_folder(folder, "UperNetForSemanticSegmentation")
        if net.config.num_labels != ADE20K_CLASSES:
            raise WeightsError(
                f"{folder} has {net.config.num_labels} classes, expected ADE20K's {ADE20K_CLASSES}"
            )
        net.auxiliary_head = None  # only training looks at it
        self._dtype = DTYPES[precision]
        self._device = torch.device(device)
        self._net = ready(net, self._device, self._dtype)

    @torch.inference_mode()
    def __call__(self, images: Batch) -> list[UInt8[np.ndarray, "h w"]]:
        """Return the class of each pixel, as ADE20K's annotations number them: 1..150."""
        pixels = self.pixel_values(to_device_nchw(images, self._device, torch.uint8))
        logits = finite(self._net(pixels).logits, "UperNet")  # (B, 150, side, side)
        size = images.shape[1:3]
        return [
            (_best(one[None].float(), size) + 1).to(torch.uint8).cpu().numpy() for one in logits
        ]

    def pixel_values(self, pixels: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s t"]:
        """Resize and normalise as the folder's image processor says, on the device."""
        how = self._how
        height, width = pixels.shape[2:]
        size = (how.size["height"], how.size["width"]) if how.do_resize else (height, width)
        return pixel_values(pixels, how, size, self._dtype)


def _best(logits: Float[Tensor, "1 c s t"], size: tuple[int, int]) -> Int[Tensor, "h w"]:
    if logits.shape[2:] != size:
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    return logits[0].argmax(0)
