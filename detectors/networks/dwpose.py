"""DWPose by its ONNX files: YOLOX's boxes of people, RTMPose's keypoints in them.

The two were trained on other colours: YOLOX on BGR as OpenCV reads it, RTMPose on RGB
(``bgr_to_rgb`` in its configuration). With the wrong ones YOLOX finds nobody in many a picture.
"""

import cv2
import numpy as np
from jaxtyping import Float, Float32

from detectors.base import Batch, Image
from detectors.errors import WeightsError
from detectors.runtimes.on_onnx import OnnxModel
from detectors.weights import resolve

JOINTS = 133

_STRIDES = (8, 16, 32)  # of YOLOX's three grids
_GREY = 114  # behind a picture that is not square
_BOX_SCORE = 0.1  # below it a box is not even compared with others
_OVERLAP = 0.45  # of two boxes, by which the lower scored is the same person
_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_STD = np.array([58.395, 57.12, 57.375], np.float32)
_MARGIN = 1.25  # around a person's box
_CELLS = 2  # of RTMPose's two axes, a pixel of its input
_TOGETHER = 32  # people at once

People = tuple[Float32[np.ndarray, "n 133 3"], Float32[np.ndarray, " n"]]


class Dwpose:
    """Both networks; those of a batch's people run together."""

    def __init__(self, checkpoint: str, boxes: str, device: str) -> None:
        self._boxes = OnnxModel(resolve(boxes), device)
        path = resolve(checkpoint)
        self._pose = OnnxModel(path, device)
        joints = self._pose.shapes[0][1]
        if joints != JOINTS:
            raise WeightsError(f"{path} has {joints} joints, not {JOINTS}")

    def __call__(self, images: Batch) -> list[People]:
        """Return the people of each image and the scores of their boxes, best first."""
        found = [self.boxes_of(image) for image in images]
        crops, frames = [], []
        for image, (boxes, _) in zip(images, found, strict=True):
            for box in boxes:
                crop, frame = cut_out(image, box, self._pose.size)
                crops.append(crop)
                frames.append(frame)
        bodies = self._bodies(crops, frames)
        people, at = [], 0
        for _, scores in found:
            people.append((bodies[at : at + len(scores)], scores))
            at += len(scores)
        return people

    def boxes_of(
        self, image: Image
    ) -> tuple[Float32[np.ndarray, "n 4"], Float32[np.ndarray, " n"]]:
        """Return left, top, right, bottom in pixels, and a score, of each person; best first."""
        height, width = self._boxes.size
        scale = min(height / image.shape[0], width / image.shape[1])
        size = int(image.shape[1] * scale), int(image.shape[0] * scale)
        canvas = np.full((height, width, 3), _GREY, np.uint8)
        canvas[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        blue_first = canvas[None, :, :, ::-1].transpose(0, 3, 1, 2)
        (raw,) = self._boxes(np.ascontiguousarray(blue_first, np.float32))
        return _people_among(raw[0], (height, width), scale)

    def _bodies(
        self, crops: list[Image], frames: list[np.ndarray]
    ) -> Float32[np.ndarray, "n 133 3"]:
        made = [np.empty((0, JOINTS, 3), np.float32)]
        for at in range(0, len(crops), _TOGETHER):
            pixels = (np.stack(crops[at : at + _TOGETHER]) - _MEAN) / _STD
            across, down = self._pose(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
            made.append(_located(across, down, np.stack(frames[at : at + _TOGETHER])))
        return np.concatenate(made)


def cut_out(
    image: Image, box: Float[np.ndarray, " 4"], size: tuple[int, int]
) -> tuple[Image, Float[np.ndarray, " 3"]]:
    """Return a person in the network's (height, width), and where that lies in the image.

    The box is widened to the network's shape and by a margin; what lies beyond the image is black.
    The second is left and top in pixels of the image, and its pixels a pixel of the crop.
    """
    height, width = size
    left, top, right, bottom = box.astype(np.float64)
    step = max((right - left) * _MARGIN / width, (bottom - top) * _MARGIN / height)
    x, y = (left + right) / 2 - step * width / 2, (top + bottom) / 2 - step * height / 2
    into = np.array([[1 / step, 0, -x / step], [0, 1 / step, -y / step]])
    crop = cv2.warpAffine(image, into, (width, height), flags=cv2.INTER_LINEAR)
    return np.asarray(crop, np.uint8), np.array([x, y, step])


def _located(
    across: Float32[np.ndarray, "n 133 w2"],
    down: Float32[np.ndarray, "n 133 h2"],
    frames: Float[np.ndarray, "n 3"],
) -> Float32[np.ndarray, "n 133 3"]:
    """Return the likeliest place of each joint in its image; its score is the less sure axis's."""
    cells = np.stack([across.argmax(-1), down.argmax(-1)], -1) / _CELLS
    places = frames[:, None, :2] + cells * frames[:, None, 2:]
    scores = np.minimum(across.max(-1), down.max(-1))
    return np.concatenate([places, scores[..., None]], -1).astype(np.float32)


def _people_among(
    raw: Float32[np.ndarray, "cells values"], size: tuple[int, int], scale: float
) -> tuple[Float32[np.ndarray, "n 4"], Float32[np.ndarray, " n"]]:
    """Decode YOLOX's grids, keep the class person, and of boxes that overlap the best."""
    cells = [
        np.stack(np.meshgrid(np.arange(size[1] // step), np.arange(size[0] // step)), -1)
        for step in _STRIDES
    ]
    corners = np.concatenate([grid.reshape(-1, 2) for grid in cells])
    counts = [grid.shape[0] * grid.shape[1] for grid in cells]
    steps = np.repeat(_STRIDES, counts)[:, None]
    scores = raw[:, 4] * raw[:, 5]  # of an object; of the class person
    kept = scores > _BOX_SCORE
    middles = (raw[kept, :2] + corners[kept]) * steps[kept] / scale
    sides = np.exp(raw[kept, 2:4]) * steps[kept] / scale
    boxes = np.concatenate([middles - sides / 2, middles + sides / 2], 1).astype(np.float32)
    best = _without_doubles(boxes, scores[kept])
    return boxes[best], scores[kept][best].astype(np.float32)


def _without_doubles(
    boxes: Float32[np.ndarray, "n 4"], scores: Float32[np.ndarray, " n"]
) -> list[int]:
    """Return the places of boxes that overlap no better one, best first (in whole pixels)."""
    order = list(np.argsort(-scores, kind="stable"))
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    areas = sides[:, 0] * sides[:, 1]
    kept: list[int] = []
    for at in order:
        if kept:
            low = np.maximum(boxes[kept, :2], boxes[at, :2])
            high = np.minimum(boxes[kept, 2:], boxes[at, 2:])
            shared = np.clip(high - low + 1, 0, None).prod(1)
            if (shared / (areas[kept] + areas[at] - shared) > _OVERLAP).any():
                continue
        kept.append(int(at))
    return kept
