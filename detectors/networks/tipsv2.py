"""TIPSv2's normals with transformers' layers and its checkpoint's folder; batching is ours."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from detectors.base import Batch, Precision
from detectors.runtimes.on_torch import DTYPES, finite, keep_fp32, ready, to_device_nchw
from detectors.runtimes.on_transformers import from_folder, pixel_values
from detectors.weights import resolve


class Tipsv2Normals:
    """Normals from one image by TIPSv2 and a DPT head, learned on NYU Depth V2.

    Of the folder's three heads only that of normals is loaded. Its x is left, its y up and its z
    towards the viewer: neither transformers nor the model's page says so, but the authors' own
    pictures do (google-deepmind/tips, pytorch/TIPS_decoder_inference.ipynb), where floors are
    green, walls ahead blue, and walls that face left red.
    """

    def __init__(self, checkpoint: str, device: str, precision: Precision) -> None:
        net, self._how = from_folder(
            resolve(checkpoint), "Tipsv2DptForNormalEstimation", family="tipsv2_dpt"
        )
        self._dtype = DTYPES[precision]
        self._device = torch.device(device)
        self._net = ready(net, self._device, self._dtype)
        keep_fp32(self._net.get_submodule("decoder.head"))

    @torch.inference_mode()
    def __call__(self, images: Batch) -> list[Float32[np.ndarray, "h w 3"]]:
        """Return the normals of each image, of its size: unit vectors (left, up, to the viewer)."""
        pixels = self.pixel_values(to_device_nchw(images, self._device, torch.uint8))
        unit = F.normalize(self._net(pixels).normals.float(), dim=1)  # (B, 3, s, t)
        back = F.interpolate(unit, images.shape[1:3], mode="bilinear", align_corners=False)
        normals = finite(F.normalize(back, dim=1), "TIPSv2").permute(0, 2, 3, 1)
        return list(normals.cpu().numpy())

    def pixel_values(self, pixels: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s t"]:
        """Resize and scale as the folder's image processor says, on the device."""
        size = (self._how.size["height"], self._how.size["width"])
        return pixel_values(pixels, self._how, size, self._dtype)
