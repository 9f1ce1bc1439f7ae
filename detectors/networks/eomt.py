"""EoMT with transformers' layers and its checkpoints' folders; windows and batching are ours."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from detectors.base import Batch, Precision
from detectors.errors import WeightsError
from detectors.runtimes.on_torch import DTYPES, finite, ready, to_device_nchw
from detectors.runtimes.on_transformers import (
    best_classes,
    from_folder,
    pixel_values,
    require_ade20k,
)
from detectors.weights import resolve


class Eomt:
    """An encoder-only mask transformer: queries that a vision transformer reads with its patches.

    It looks at squares. The short side is brought to a square's, and the long one is covered by as
    few squares as it takes, which overlap; where they do, the mean counts.
    """

    def __init__(self, checkpoint: str, device: str, precision: Precision) -> None:
        folder = resolve(checkpoint)
        net, self._how = from_folder(folder, "EomtForUniversalSegmentation", trains="criterion")
        require_ade20k(net, folder)
        self._side = int(net.config.image_size)
        if not self._how.do_split_image or self._how.size["shortest_edge"] != self._side:
            raise WeightsError(
                f"{folder} does not look at squares of {self._side} pixels: it is for panoptic "
                "segmentation or for instances, expected one for semantic segmentation"
            )
        self._dtype = DTYPES[precision]
        self._device = torch.device(device)
        self._net = ready(net, self._device, self._dtype)

    @torch.inference_mode()
    def __call__(self, images: Batch) -> list[UInt8[np.ndarray, "h w"]]:
        """Return the class of each pixel, as ADE20K's annotations number them: 1..150."""
        pixels = self.pixel_values(to_device_nchw(images, self._device, torch.uint8))
        upright = pixels.shape[2] > pixels.shape[3]
        along = 2 if upright else 3  # the dimension of the long side
        starts = _starts(pixels.shape[along], self._side)
        looks = [self._net(pixels.narrow(along, start, self._side)) for start in starts]

        def scores(at: int) -> Float[Tensor, "c h w"]:
            windows = [
                self._scores(look.masks_queries_logits[at], look.class_queries_logits[at])
                for look in looks
            ]
            joined = _joined(windows, starts, pixels.shape[along], upright=upright)
            return finite(joined, "EoMT")

        return best_classes(map(scores, range(len(images))), images.shape[1:3])

    def pixel_values(self, pixels: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s t"]:
        """Resize and normalise as the folder's image processor says, on the device."""
        height, width = pixels.shape[2:]
        short = min(height, width)
        size = (self._side * height // short, self._side * width // short)
        return pixel_values(pixels, self._how, size, self._dtype)

    def _scores(
        self, masks: Float[Tensor, "q m m"], classes: Float[Tensor, "q d"]
    ) -> Float[Tensor, "c s s"]:
        """Return each class's score at each pixel of a square: what the queries say, by share."""
        whole = F.interpolate(masks[None].float(), (self._side, self._side), mode="bilinear")[0]
        shares = classes.float().softmax(-1)[:, :-1]  # the last is no class
        return torch.einsum("qc,qhw->chw", shares, whole.sigmoid())


def _starts(long: int, side: int) -> list[int]:
    """Return where the fewest squares begin that cover a long side, evenly spread; pixels."""
    count = -(-long // side)
    return [at * (long - side) // max(count - 1, 1) for at in range(count)]


def _joined(
    windows: list[Float[Tensor, "c s s"]], starts: list[int], long: int, *, upright: bool
) -> Float[Tensor, "c h w"]:
    """Return the mean of what squares say of each pixel."""
    along, (classes, side, _) = 1 if upright else 2, windows[0].shape
    total = windows[0].new_zeros((classes, long, side) if upright else (classes, side, long))
    count = windows[0].new_zeros((1, long, 1) if upright else (1, 1, long))
    for start, window in zip(starts, windows, strict=True):
        total.narrow(along, start, side).add_(window)
        count.narrow(along, start, side).add_(1)
    return total / count
