"""What the torch networks share: precisions, and the way of pixels onto the device."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from detectors.base import Batch, Precision

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


def to_device_nchw(
    images: Batch, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "b 3 h w"]:
    """Copy pixels to the device as bytes, then make them floats 0..255 in channels-last memory."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device, non_blocking=True)
    return pixels.permute(0, 3, 1, 2).to(dtype)  # NHWC memory under an NCHW shape: channels last
