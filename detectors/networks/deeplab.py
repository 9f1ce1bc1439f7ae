"""DeepLab v3 for ADE20K out of MLCommons' mobile models, by LiteRT on the CPU."""

import cv2
import numpy as np
from jaxtyping import UInt8

from detectors.base import Batch, Image
from detectors.errors import WeightsError
from detectors.runtimes.litert import interpreter
from detectors.weights import resolve

SIDE = 512  # pixels of the square that it takes
CLASSES = 31  # ADE20K's first; 0 is everything else


class DeepLab:
    """Semantic segmentation (Chen et al., 2017); 8-bit weights, so the precision is its own."""

    def __init__(self, checkpoint: str) -> None:
        self._interpreter = interpreter(resolve(checkpoint))
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()
        have = (tuple(self._input["shape"]), self._input["dtype"])
        if have != ((1, SIDE, SIDE, 3), np.uint8):
            raise WeightsError(f"{checkpoint} takes {have}, expected uint8 (1, {SIDE}, {SIDE}, 3)")

    def __call__(self, images: Batch) -> list[UInt8[np.ndarray, "h w"]]:
        """Return the class of each pixel, as ADE20K's annotations number them: 1..31, 0 other."""
        return [self._classes(image) for image in images]

    def _classes(self, image: Image) -> UInt8[np.ndarray, "h w"]:
        height, width = image.shape[:2]
        self._interpreter.set_tensor(self._input["index"], _square(image)[None])
        self._interpreter.invoke()
        ids = self._interpreter.get_tensor(self._output["index"])[0].astype(np.uint8)
        if (height, width) == (SIDE, SIDE):
            return np.asarray(ids)
        return np.asarray(cv2.resize(ids, (width, height), interpolation=cv2.INTER_NEAREST_EXACT))


def _square(image: Image) -> Image:
    if image.shape[:2] == (SIDE, SIDE):
        return image
    shrinks = min(image.shape[:2]) >= SIDE
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (SIDE, SIDE), interpolation=how))
