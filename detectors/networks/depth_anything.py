"""Depth Anything V2 with transformers' layers and its checkpoints' folders; batching is ours."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from detectors.base import Batch, Precision
from detectors.errors import WeightsError
from detectors.runtimes.on_torch import DTYPES, finite, keep_fp32, ready, to_device_nchw
from detectors.runtimes.on_transformers import from_folder, pixel_values
from detectors.weights import resolve


class DepthAnything:
    """Depth from one image, up to an unknown scale and offset, by DINOv2 and a DPT head."""

    def __init__(self, checkpoint: str, device: str, precision: Precision) -> None:
        folder = resolve(checkpoint)
        net, self._how = from_folder(folder, "DepthAnythingForDepthEstimation")
        if net.config.depth_estimation_type != "relative":
            raise WeightsError(
                f"{folder} finds {net.config.depth_estimation_type} depth, which grows with the "
                "distance; expected relative depth, which grows with nearness"
            )
        self._dtype = DTYPES[precision]
        self._device = torch.device(device)
        self._net = ready(net, self._device, self._dtype)
        keep_fp32(self._net.get_submodule("head.conv3"))

    @torch.inference_mode()
    def __call__(self, images: Batch) -> list[Float32[np.ndarray, "h w"]]:
        """Return the inverse depth of each image, of the image's size: the nearer, the larger.

        Brought back to that size by a cubic, as transformers does, which may overshoot at edges.
        """
        pixels = self.pixel_values(to_device_nchw(images, self._device, torch.uint8))
        depth = self._net(pixels).predicted_depth[:, None]  # (B, 1, s, t)
        back = F.interpolate(depth.float(), images.shape[1:3], mode="bicubic", align_corners=False)
        return list(finite(back, "Depth Anything")[:, 0].cpu().numpy())

    def pixel_values(self, pixels: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s t"]:
        """Resize and normalise as the folder's image processor says, on the device.

        On a CPU to the bit what transformers' own gives by torchvision. Its other one, by Pillow,
        gives bytes that differ by 1 of 255 at most, by 0.004 in the mean, on three photographs.
        """
        height, width = pixels.shape[2:]
        return pixel_values(pixels, self._how, _seen(self._how, height, width), self._dtype)


def _seen(how: Any, height: int, width: int) -> tuple[int, int]:
    """Return the height and width that the network sees: whole patches, the shape nearly kept."""
    down, across = how.size["height"] / height, how.size["width"] / width
    if how.keep_aspect_ratio:
        down = across = min(down, across, key=lambda scale: abs(1 - scale))
    step = how.ensure_multiple_of
    return round(height * down / step) * step, round(width * across / step) * step
