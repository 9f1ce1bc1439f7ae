"""Soft edges as a map: what the detectors of edge probabilities share."""

from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from pydantic import Field

from detectors.base import Annotation, Image, Result, Spec


class SoftEdgesSpec(Spec):
    """Edge probability as grey."""

    safe: bool = Field(
        False,
        description="only the levels 0, 127 and 255: soft maps hide a grey copy of the image",
    )

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return the map (h, w)."""
        return Annotation(map=to_grey(quantised(found) if self.safe else found))


def quantised(edges: Float32[np.ndarray, "h w"], steps: int = 2) -> Float32[np.ndarray, "h w"]:
    """Reduce probabilities to multiples of 1/steps, rounding down from steps + 1 equal bins."""
    return np.floor(edges * np.float32(steps + 1)) / np.float32(steps)


def to_grey(edges: Float32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Return probabilities 0..1 as 0..255, rounded down."""
    return (edges * np.float32(255)).clip(0, 255).astype(np.uint8)
