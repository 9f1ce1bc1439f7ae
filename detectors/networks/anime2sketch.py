"""Anime2Sketch with controlnet_aux's layers and state dict; batching is ours."""

from functools import partial

import cv2
import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import nn

from detectors.base import Batch, Precision
from detectors.runtimes.on_torch import (
    DTYPES,
    finite,
    quietly,
    ready,
    to_device_nchw,
    without_wrapper,
)
from detectors.weights import load_state_dict

_STEP = 256  # eight halvings: a smaller grid would leave the innermost layer nothing


class Anime2Sketch:
    """Line drawings of illustrations (Xiang et al., 2021): a UNet with instance norms."""

    def __init__(self, checkpoint: str, device: str, precision: Precision) -> None:
        net = _layers()
        net.load_state_dict(without_wrapper(load_state_dict(checkpoint)))
        self._dtype = DTYPES[precision]
        self._device = torch.device(device)
        # its instance norms and transposed convolutions are a tenth slower in channels-last memory
        self._net = ready(net, self._device, self._dtype, torch.contiguous_format)

    @torch.inference_mode()
    def __call__(self, images: Batch) -> list[UInt8[np.ndarray, "h w"]]:
        """Return the drawing of each image, of its size: white lines on black, 0..255."""
        height, width = images.shape[1:3]
        grid = (_round_up(width), _round_up(height))
        fed = np.stack([_resized(image, grid) for image in images])
        pixels = to_device_nchw(fed, self._device, self._dtype).contiguous() / 127.5 - 1
        paper = finite(self._net(pixels)[:, 0].float(), "Anime2Sketch") * 127.5 + 127.5
        return [_inverted(one, (width, height)) for one in paper.cpu().numpy()]


def _layers() -> nn.Module:
    with quietly():
        from controlnet_aux.lineart_anime import UnetGenerator
    norm = partial(nn.InstanceNorm2d, affine=False, track_running_stats=False)
    net: nn.Module = UnetGenerator(3, 1, 8, 64, norm_layer=norm)
    return net


def _round_up(side: int) -> int:
    return -(-side // _STEP) * _STEP


def _resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if pixels.shape[1::-1] == size:
        return pixels
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC))


def _inverted(paper: Float32[np.ndarray, "H W"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """Return white lines on black of the drawing's dark lines on white paper."""
    dark: np.ndarray = np.uint8(255) - _resized(paper, size).clip(0, 255).astype(np.uint8)
    return dark
