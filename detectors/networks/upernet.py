"""UperNet with transformers' layers and its checkpoints' folders; batching is ours."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from detectors.base import Batch, Precision
from detectors.errors import WeightsError
from detectors.palettes import ADE20K_CLASSES
from detectors.runtimes.on_torch import DTYPES, finite, quietly, ready, to_device_nchw
from detectors.weights import resolve


class UperNet:
    """Unified perceptual parsing (Xiao et al., 2018), as transformers has it."""

    def __init__(self, checkpoint: str, device: str, precision: Precision) -> None:
        net, self._how = _from_folder(resolve(checkpoint))
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
        if how.do_resize:
            size = [how.size["height"], how.size["width"]]
            pixels = transforms.resize(
                pixels, size, interpolation=InterpolationMode.BILINEAR, antialias=True
            )
        scaled = pixels.float() * how.rescale_factor
        normal: Tensor = (scaled - self._row(how.image_mean)) / self._row(how.image_std)
        return normal.to(self._dtype)

    def _row(self, values: list[float]) -> Float[Tensor, "1 3 1 1"]:
        return torch.tensor(values, device=self._device).reshape(1, 3, 1, 1)


def _from_folder(folder: Path) -> tuple[Any, Any]:
    """Return the net and its image processor, whose values alone are used."""
    with quietly():
        from transformers import AutoImageProcessor, UperNetForSemanticSegmentation

        net = UperNetForSemanticSegmentation.from_pretrained(folder, local_files_only=True)
        how = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    if net.config.num_labels != ADE20K_CLASSES:
        raise WeightsError(
            f"{folder} has {net.config.num_labels} classes, expected ADE20K's {ADE20K_CLASSES}"
        )
    net.auxiliary_head = None  # only training looks at it
    return net, how


def _best(logits: Float[Tensor, "1 c s t"], size: tuple[int, int]) -> Int[Tensor, "h w"]:
    if logits.shape[2:] != size:
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    return logits[0].argmax(0)
