"""A picture of soft noise."""

import cv2
import numpy as np

from catalog.images import Image


def noise(seed: int = 0, height: int = 120, width: int = 160) -> Image:
    """Return coarse random colours, enlarged; uint8 RGB (h, w, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
