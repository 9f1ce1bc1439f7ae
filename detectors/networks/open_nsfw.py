"""Yahoo's open_nsfw by OpenCV on the CPU (github.com/yahoo/open_nsfw, classify_nsfw.py)."""

import io
import threading

import cv2
import numpy as np
from jaxtyping import Float32
from PIL import Image as PILImage

from detectors.base import Batch, Image
from detectors.weights import resolve

_SIDE = 256  # pixels of the square to which an image is squeezed
_SEEN = 224  # pixels of the middle of it
_MEAN = np.array([104, 117, 123], np.float32)  # blue, green, red


class OpenNsfw:
    """It was trained on pictures that were made small as JPEG, and is shown such ones."""

    def __init__(self, checkpoint: str) -> None:
        self._network = cv2.dnn.readNetFromONNX(str(resolve(checkpoint)))
        self._lock = threading.Lock()  # the network holds its input and its output

    def __call__(self, images: Batch) -> list[float]:
        """Return a score an image, 0..1, to four digits."""
        return [self._score(_prepared(image)) for image in images]

    def _score(self, pixels: Float32[np.ndarray, "1 224 224 3"]) -> float:
        with self._lock:
            self._network.setInput(pixels)
            return round(float(self._network.forward().reshape(-1)[1]), 4)


def _prepared(image: Image) -> Float32[np.ndarray, "1 224 224 3"]:
    small = PILImage.fromarray(image).resize((_SIDE, _SIDE), PILImage.Resampling.BILINEAR)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG")  # as the pictures that it was trained on; scores move without
    start = (_SIDE - _SEEN) // 2
    seen = np.asarray(PILImage.open(buffer))[start : start + _SEEN, start : start + _SEEN, ::-1]
    return np.ascontiguousarray(seen.astype(np.float32) - _MEAN)[None]
