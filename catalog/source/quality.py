"""What can be measured of one image without a network: colour, sharpness, contrast, damage.

ControlNet 1.0's own data held greyscale, blurred and damaged photographs; the recipe's rules judge
these numbers, and the ledger keeps them for every image, so that another threshold is a query.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from catalog.images import Image, resize

SHARPNESS_SIDE = 512
"""Pixels of the short side at which sharpness is measured; a smaller image is not enlarged.

A recipe of a smaller resolution may decode a JPEG smaller still, and it is that picture, in which
blur of a few pixels is gone, that is measured."""

_COLOUR_SIDE = 64  # pixels; averages the colour noise that JPEG leaves in a grey picture
_TILES = 8  # a side; of 64 tiles the sixth sharpest counts, so a sharp subject outweighs its blur
_PERCENTILE = 90
_GREY = 128  # what libjpeg fills a picture with where its data end
_NEAR = 2  # levels by which such a row may differ after another encoding


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """One image in numbers.

    Attributes:
        chroma: colour, 0..180: the distance from the image's median colour, in the plane of Cb and
            Cr, that 5% of the picture exceed. 0 for greyscale, whatever its tint.
        sharpness: variance of the Laplacian in levels squared, at a short side of 512 pixels, in
            the tile that 10% of the tiles exceed.
        contrast: standard deviation of the brightness, 0..127.5.
        grey_tail: share of the height, counted from the bottom, that is one flat middle grey: what
            decoders make of missing data. 0..1.
    """

    chroma: float
    sharpness: float
    contrast: float
    grey_tail: float


def measure(pixels: Image) -> Measures:
    """Measure an image as it was decoded, before it is cropped; uint8 RGB (h, w, 3)."""
    brightness = np.asarray(cv2.cvtColor(_shrink(pixels, SHARPNESS_SIDE), cv2.COLOR_RGB2GRAY))
    return Measures(
        chroma=round(_chroma(pixels), 3),
        sharpness=round(_sharpness(brightness), 3),
        contrast=round(float(cv2.meanStdDev(brightness)[1][0, 0]), 3),
        grey_tail=round(_grey_tail(pixels), 4),
    )


def _shrink(pixels: Image, side: int) -> Image:
    height, width = pixels.shape[:2]
    scale = side / min(height, width)
    if scale >= 1:
        return pixels
    return resize(pixels, (max(1, round(width * scale)), max(1, round(height * scale))))


def _chroma(pixels: Image) -> float:
    step = max(1, min(pixels.shape[:2]) // (2 * _COLOUR_SIDE))
    some = np.ascontiguousarray(pixels[::step, ::step])
    small = cv2.resize(some, (_COLOUR_SIDE, _COLOUR_SIDE), interpolation=cv2.INTER_AREA)
    planes = cv2.cvtColor(small.astype(np.float32), cv2.COLOR_RGB2YCrCb)[:, :, 1:].reshape(-1, 2)
    away = planes - np.median(planes, axis=0)
    return float(np.percentile(np.hypot(away[:, 0], away[:, 1]), 95))


def _sharpness(brightness: UInt8[np.ndarray, "h w"]) -> float:
    edges = cv2.Laplacian(brightness, cv2.CV_16S)[::2, ::2].astype(np.float32)  # a sample will do
    squares, means = _tiles(edges * edges), _tiles(edges)
    return float(np.percentile(squares - means * means, _PERCENTILE))


def _tiles(values: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "8 8"]:
    """Return the mean of each of 8 x 8 tiles."""
    return np.asarray(cv2.resize(values, (_TILES, _TILES), interpolation=cv2.INTER_AREA))


def _grey_tail(pixels: Image) -> float:
    tail = 0
    for row in pixels[::-1]:
        if np.abs(row.astype(np.int16) - _GREY).max() > _NEAR:
            break
        tail += 1
    return tail / len(pixels)
