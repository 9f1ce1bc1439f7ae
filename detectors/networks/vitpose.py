"""RT-DETR and ViTPose++ with transformers' layers and their checkpoints' folders.

Boxes, crops and heatmaps are handled as transformers' image processors do; the crop is OpenCV's,
where theirs is scipy's, an image and a channel at a time. Peaks are told on the device, for all
people together, where theirs are told on the CPU.
"""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from detectors.base import Batch, Image, Precision
from detectors.errors import WeightsError
from detectors.runtimes.on_torch import DTYPES, finite, ready, to_device_nchw
from detectors.runtimes.on_transformers import from_folder
from detectors.weights import resolve

JOINTS = 17

_COCO = 0  # of ViTPose++'s experts, that for COCO's joints
_BOX_SCORE = 0.1  # a box below it is not looked at
_MARGIN = 1.25  # around a person's box
_TOGETHER = 64  # people at once
_REACH, _SIGMA = 5, 0.8  # cells that a heatmap is blurred over before its peak is told
_LOWEST, _HIGHEST = 0.001, 50.0  # of a blurred heatmap, before its logarithm

People = tuple[Float32[np.ndarray, "n 17 3"], Float32[np.ndarray, " n"]]


class Vitpose:
    """Both networks; those of a batch's people run together."""

    def __init__(self, checkpoint: str, boxes: str, device: str, precision: Precision) -> None:
        self._dtype = DTYPES[precision]
        self._device = torch.device(device)
        finder, self._look = from_folder(resolve(boxes), "RTDetrForObjectDetection")
        self._person = _person(finder.config.id2label, boxes)
        self._finder = ready(finder, self._device, self._dtype)
        folder = resolve(checkpoint)
        net, how = from_folder(folder, "VitPoseForPoseEstimation")
        if net.config.num_labels != JOINTS:
            raise WeightsError(f"{folder} has {net.config.num_labels} joints, not {JOINTS}")
        self._experts = getattr(net.config.backbone_config, "num_experts", 1) > 1
        if self._experts:
            _keep_one_expert(net)
        self._size = int(how.size["height"]), int(how.size["width"])
        self._mean = torch.tensor(how.image_mean, device=self._device).reshape(1, 3, 1, 1)
        self._std = torch.tensor(how.image_std, device=self._device).reshape(1, 3, 1, 1)
        self._net = ready(net, self._device, self._dtype)

    @torch.inference_mode()
    def __call__(self, images: Batch) -> list[People]:
        """Return the people of each image and the scores of their boxes, best first."""
        found = self.boxes_of(images)
        pairs = [
            cut_out(image, box, self._size)
            for image, (boxes, _) in zip(images, found, strict=True)
            for box in boxes
        ]
        bodies = np.empty((0, JOINTS, 3), np.float32)
        if pairs:
            starts = range(0, len(pairs), _TOGETHER)
            parts = [self._bodies(pairs[at : at + _TOGETHER]) for at in starts]
            bodies = torch.cat(parts).cpu().numpy()
        ends = np.cumsum([len(scores) for _, scores in found])
        each = np.split(bodies, ends[:-1])
        return [(body, scores) for body, (_, scores) in zip(each, found, strict=True)]

    def boxes_of(
        self, images: Batch
    ) -> list[tuple[Float32[np.ndarray, "n 4"], Float32[np.ndarray, " n"]]]:
        """Return left, top, right, bottom in pixels, and a score, of each image's people."""
        pixels = to_device_nchw(images, self._device, torch.uint8)
        size = [self._look.size["height"], self._look.size["width"]]
        small = transforms.resize(
            pixels, size, interpolation=InterpolationMode.BILINEAR, antialias=True
        )
        scaled = (small.float() * self._look.rescale_factor).to(self._dtype)
        seen = self._finder(scaled)
        scores = finite(seen.logits.float(), "RT-DETR").sigmoid().cpu().numpy()
        height, width = images.shape[1:3]
        whole = np.array([width, height, width, height], np.float32)
        boxes = _corners(seen.pred_boxes.float().cpu().numpy()) * whole
        return [self._people_among(box, score) for box, score in zip(boxes, scores, strict=True)]

    def _people_among(
        self, boxes: Float32[np.ndarray, "q 4"], scores: Float32[np.ndarray, "q classes"]
    ) -> tuple[Float32[np.ndarray, "n 4"], Float32[np.ndarray, " n"]]:
        """Return the boxes of people; as in transformers, the best so many of all classes count."""
        queries = len(scores)
        least = np.partition(scores.ravel(), -queries)[-queries]
        person = scores[:, self._person]
        order = np.argsort(-person, kind="stable")
        kept = order[(person[order] > _BOX_SCORE) & (person[order] >= least)]
        return boxes[kept], person[kept]

    def _bodies(
        self, pairs: list[tuple[Image, Float[np.ndarray, " 4"]]]
    ) -> Float32[Tensor, "n 17 3"]:
        crops = np.stack([crop for crop, _ in pairs])
        pixels = to_device_nchw(crops, self._device, torch.float32) / 255
        normal = ((pixels - self._mean) / self._std).to(self._dtype)
        expert = {}
        if self._experts:
            expert = {"dataset_index": torch.full((len(pairs),), _COCO, device=self._device)}
        heatmaps = finite(self._net(normal, **expert).heatmaps.float(), "ViTPose")
        places, scores = peaks(heatmaps)
        frames = torch.from_numpy(np.stack([frame for _, frame in pairs])[:, None])
        frames = frames.to(self._device)  # (n, 1, 4)
        last = places.new_tensor(heatmaps.shape[:1:-1]) - 1  # across, down
        found = frames[..., :2] + places * frames[..., 2:] / last
        return torch.cat([found.float(), scores[..., None]], -1)


def cut_out(
    image: Image, box: Float[np.ndarray, " 4"], size: tuple[int, int]
) -> tuple[Image, Float[np.ndarray, " 4"]]:
    """Return a person in the network's (height, width), and where that lies in the image.

    The box is widened to the network's shape and by a margin; what lies beyond the image is black.
    The first and the last pixel of the crop are the ends of that (unbiased data processing, Huang
    et al., 2020). The second is left, top, width and height in pixels of the image.
    """
    height, width = size
    left, top, right, bottom = box.astype(np.float64)
    middle = np.array([(left + right) / 2, (top + bottom) / 2])
    wide = max(right - left, (bottom - top) * width / height)
    sides = np.array([wide, wide * height / width]) * _MARGIN
    begin = middle - sides / 2
    step = sides / (np.array([width, height]) - 1.0)
    into = np.array([[1 / step[0], 0, -begin[0] / step[0]], [0, 1 / step[1], -begin[1] / step[1]]])
    crop = cv2.warpAffine(
        image, into, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    x, y = (begin[at] + np.arange(count) * step[at] for at, count in enumerate((width, height)))
    crop[(y < 0) | (y > image.shape[0] - 1)] = 0  # never blended with the picture's last pixels
    crop[:, (x < 0) | (x > image.shape[1] - 1)] = 0
    return np.asarray(crop, np.uint8), np.array([*begin, *sides])


def peaks(
    heatmaps: Float32[Tensor, "n j h w"],
) -> tuple[Float64[Tensor, "n j 2"], Float32[Tensor, "n j"]]:
    """Return x and y of each heatmap's peak, told between its cells, and the peak's height.

    In float64, since TF32 would touch the products of float32.

    Source: Zhang et al., Distribution-Aware Coordinate Representation (2020): the logarithm of a
    blurred heatmap is a parabola around its peak.
    """
    height, width = heatmaps.shape[2:]
    heights, at = heatmaps.flatten(2).max(-1)
    y, x = at // width, at % width
    soft = _blur(height, heatmaps) @ heatmaps.double() @ _blur(width, heatmaps).T
    beside = torch.arange(-1, 2, device=at.device)
    rows = (y[..., None] + beside).clamp(0, height - 1)
    columns = (x[..., None] + beside).clamp(0, width - 1)
    cells = (rows[..., :, None] * width + columns[..., None, :]).flatten(2)  # (n, j, 9)
    surface = soft.flatten(2).gather(2, cells).clamp(_LOWEST, _HIGHEST).log()
    return torch.stack([x, y], -1) - _beyond(surface), heights


def _beyond(surface: Float64[Tensor, "n j 9"]) -> Float64[Tensor, "n j 2"]:
    """Return how far a cell lies beyond its parabola's top, to the right and down, in cells.

    It is told by the cell and its eight neighbours, row by row.
    """
    north_west, north, _, west, here, east, _, south, south_east = surface.unbind(-1)
    right, down = (east - west) / 2, (south - north) / 2
    tiny = torch.finfo(torch.float32).eps  # a flat surface has its top anywhere: where it is
    across, along = east - 2 * here + west + tiny, south - 2 * here + north + tiny
    mixed = (south_east - east - south + 2 * here - west - north + north_west) / 2
    area = across * along - mixed * mixed
    steps = (along * right - mixed * down, across * down - mixed * right)
    return torch.stack(steps, -1) / area[..., None]


def _blur(length: int, like: Tensor) -> Float64[Tensor, "length length"]:
    """Return the matrix that blurs one side of a heatmap, mirrored at its ends."""
    offsets = np.arange(-_REACH, _REACH + 1)
    shares = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    made = np.zeros((length, length))
    for at in range(length):
        cells = (at + offsets) % (2 * length)
        np.add.at(made[at], np.minimum(cells, 2 * length - 1 - cells), shares / shares.sum())
    return torch.from_numpy(made).to(like.device)


def _keep_one_expert(net: Any) -> None:
    """Drop the experts for other joints: transformers runs them all and multiplies them by zero."""
    for layer in net.backbone.encoder.layer:
        del layer.mlp.experts[_COCO + 1 :]
        layer.mlp.experts.num_experts = _COCO + 1


def _corners(boxes: Float32[np.ndarray, "b q 4"]) -> Float32[np.ndarray, "b q 4"]:
    middles, sides = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([middles - sides / 2, middles + sides / 2], -1)


def _person(names: Mapping[int, str], checkpoint: str) -> int:
    """Return the number of the class person."""
    for number, name in names.items():
        if name == "person":
            return int(number)
    known = ", ".join(list(names.values())[:3])
    raise WeightsError(f"{checkpoint} finds no class person, but {known}, ...")
