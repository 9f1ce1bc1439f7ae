"""MoveNet MultiPose Lightning by LiteRT on the CPU: up to six people, 17 keypoints."""

import threading

import cv2
import numpy as np
from jaxtyping import Float32

from detectors.base import Batch, Image
from detectors.runtimes.litert import interpreter
from detectors.weights import resolve

_LONG_SIDE = 256  # pixels at which the model is run
_STEP = 32  # of which the sides that it takes are multiples
_JOINTS = 17


class MoveNet:
    """Its precision is its own: float weights, uint8 pixels."""

    def __init__(self, checkpoint: str) -> None:
        self._interpreter = interpreter(resolve(checkpoint))
        self._lock = threading.Lock()  # the tensors belong to the interpreter

    def __call__(self, images: Batch) -> list[Float32[np.ndarray, "6 52"]]:
        """Return six candidates an image.

        A row: x, y in pixels and a score for each of COCO's 17 joints, and the person's score.
        """
        return [self._candidates(image) for image in images]

    def _candidates(self, image: Image) -> Float32[np.ndarray, "6 52"]:
        height, width = image.shape[:2]
        scale = _LONG_SIDE / max(height, width)
        size = round(width * scale), round(height * scale)
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.resize(image, size, interpolation=method)
        padded = np.pad(small, ((0, -size[1] % _STEP), (0, -size[0] % _STEP), (0, 0)))
        found = self._run(padded)  # (6, 56): y, x, score a joint; a box; the person's score
        joints = found[:, : 3 * _JOINTS].reshape(-1, _JOINTS, 3)
        x = joints[:, :, 1] * (padded.shape[1] * width / size[0])
        y = joints[:, :, 0] * (padded.shape[0] * height / size[1])
        flat = np.stack([x, y, joints[:, :, 2]], 2).reshape(len(found), -1)
        return np.column_stack([flat, found[:, -1]]).astype(np.float32)

    def _run(self, pixels: Image) -> Float32[np.ndarray, "6 56"]:
        with self._lock:
            (taken,) = self._interpreter.get_input_details()
            if tuple(taken["shape"]) != (1, *pixels.shape):
                self._interpreter.resize_tensor_input(taken["index"], (1, *pixels.shape))
                self._interpreter.allocate_tensors()
            (given,) = self._interpreter.get_output_details()
            self._interpreter.set_tensor(taken["index"], pixels[None])
            self._interpreter.invoke()
            return np.array(self._interpreter.get_tensor(given["index"])[0])
