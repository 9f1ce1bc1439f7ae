"""Soft edges by HED (paper, section 3.5, "HED Boundary")."""

from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, UInt8
from pydantic import Field

from detectors.base import (
    Annotation,
    ConditionName,
    Image,
    Network,
    NetworkSpec,
    Precision,
    Result,
    Spec,
)

HedCheckpoint = Literal["hed_bsds500", "hed_bsds500_fused", "controlnet_hed"]


class HedNetwork(NetworkSpec):
    """HED with one of the checkpoints that fit its layers."""

    checkpoint: HedCheckpoint = "hed_bsds500"

    def load(self, device: str, precision: Precision) -> Network:
        """Load the network; its findings are edge probabilities, float32 (h, w), 0..1."""
        from detectors.networks.hed import Hed

        return Hed(self.checkpoint, device, precision)


class HedSpec(Spec):
    """Edge probability as grey."""

    detector: Literal["hed"] = "hed"
    condition: ConditionName = "hed"
    checkpoint: HedCheckpoint = Field(
        "hed_bsds500",
        description="hed_bsds500: trained anew by the authors' recipe, sides averaged; "
        "hed_bsds500_fused: the same with their learned fusion, as ControlNet 1.0 computed it; "
        "controlnet_hed: ControlNet 1.1's, sides averaged",
    )
    safe: bool = Field(
        False,
        description="only the levels 0, 127 and 255: soft maps hide a grey copy of the image",
    )

    @property
    def network(self) -> HedNetwork:
        """HED."""
        return HedNetwork(checkpoint=self.checkpoint)

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return the map (h, w)."""
        return Annotation(map=to_grey(quantised(found) if self.safe else found))


def quantised(edges: Float32[np.ndarray, "h w"], steps: int = 2) -> Float32[np.ndarray, "h w"]:
    """Reduce probabilities to multiples of 1/steps, rounding down from steps + 1 equal bins."""
    return np.floor(edges * np.float32(steps + 1)) / np.float32(steps)


def to_grey(edges: Float32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Return probabilities 0..1 as 0..255, rounded down."""
    return (edges * np.float32(255)).clip(0, 255).astype(np.uint8)
