"""M-LSD with controlnet_aux's layers and state dicts; batching and decoding are ours."""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor, nn

from detectors.base import Batch, Precision
from detectors.runtimes.on_torch import (
    DTYPES,
    finite,
    fold_norms,
    keep_fp32,
    quietly,
    ready,
    require_multiple,
    to_device_nchw,
)
from detectors.weights import load_state_dict

_LAST = {"mlsd_large": "block23.conv3", "mlsd_tiny": "block16.conv3"}
_STEP = 16  # the coarsest layer has 1/16 of the size
_ONES = 1 / 127.5 - 1  # upstream appends a channel of ones before it scales pixels to -1..1


class Mlsd:
    """Line segments (Gu et al., 2022): a map of centres, and of where a centre's ends lie."""

    def __init__(
        self,
        checkpoint: str,
        side: int | None,
        candidates: int,
        device: str,
        precision: Precision,
    ) -> None:
        net = _layers(checkpoint)
        net.load_state_dict(load_state_dict(checkpoint))
        self._side = side
        self._candidates = candidates
        self._dtype = DTYPES[precision]
        self._device = torch.device(device)
        self._net = ready(fold_norms(net), self._device, self._dtype)
        keep_fp32(self._net.get_submodule(_LAST[checkpoint]))

    @torch.inference_mode()
    def __call__(self, images: Batch) -> list[Float64[np.ndarray, "n 5"]]:
        """Return the best centres of each image, best first: x1, y1, x2, y2, score.

        In pixels of the network's map, which has half the size of what the network was given.

        Raises:
            DetectorError: a side is no multiple of 16 pixels.
        """
        images = self._resized(images)
        require_multiple(images, _STEP, "M-LSD")
        pixels = to_device_nchw(images, self._device, self._dtype) / 127.5 - 1
        ones = torch.full_like(pixels[:, :1], _ONES)
        maps = finite(self._net(torch.cat([pixels, ones], 1)).float(), "M-LSD")  # (B, 9, h, w)
        return _decode(maps, self._candidates)

    def _resized(self, images: Batch) -> Batch:
        if self._side is None or images.shape[1:3] == (self._side, self._side):
            return images
        size = (self._side, self._side)
        return np.stack([cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images])


def _layers(checkpoint: str) -> nn.Module:
    with quietly():
        from controlnet_aux.mlsd.models.mbv2_mlsd_large import MobileV2_MLSD_Large
        from controlnet_aux.mlsd.models.mbv2_mlsd_tiny import MobileV2_MLSD_Tiny
    net: nn.Module = MobileV2_MLSD_Tiny() if checkpoint == "mlsd_tiny" else MobileV2_MLSD_Large()
    return net


def _decode(maps: Float[Tensor, "b 9 h w"], candidates: int) -> list[Float64[np.ndarray, "n 5"]]:
    """Find the highest peaks among the centres, and their ends."""
    heat = maps[:, 0].sigmoid()  # (B, h, w)
    peaks = heat * (F.max_pool2d(heat[:, None], 3, stride=1, padding=1)[:, 0] == heat)
    flat = peaks.flatten(1)
    scores, at = flat.topk(min(candidates, flat.shape[1]))  # (B, n)
    shifts = maps[:, 1:5].flatten(2).gather(2, at[:, None].expand(-1, 4, -1))  # (B, 4, n)
    columns, rows = at % heat.shape[2], at // heat.shape[2]
    centres = torch.stack([columns, rows, columns, rows], 1)  # (B, 4, n)
    ends = centres.cpu().numpy() + shifts.cpu().numpy().astype(np.float64)
    lines = np.concatenate([ends, scores.cpu().numpy()[:, None]], 1)  # (B, 5, n)
    return list(lines.transpose(0, 2, 1))
