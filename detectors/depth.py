"""Depth by MiDaS (paper, section 3.5, "Depth (large-scale)" and "Depth (small-scale)")."""

from typing import Any, Literal

import numpy as np
from jaxtyping import Float32
from pydantic import Field

from detectors.base import (
    Annotation,
    ConditionName,
    Image,
    Network,
    NetworkSpec,
    Precision,
    Refusal,
    Result,
    Spec,
)

MidasCheckpoint = Literal["midas_dpt_hybrid"]

FLAT = 1e-4
"""An inverse depth with a range of this or less, in the network's unit, is flat; by MiDaS,
photographs have hundreds."""


class MidasNetwork(NetworkSpec):
    """MiDaS; shared by depth and normals."""

    checkpoint: MidasCheckpoint = "midas_dpt_hybrid"

    def load(self, device: str, precision: Precision) -> Network:
        """Load the network; its findings are inverse depths, float32 (h, w), >= 0, no unit."""
        from detectors.networks.midas import Midas

        return Midas(self.checkpoint, device, precision)


class NearnessSpec(Spec):
    """Nearness as grey, white nearest: inverse depth, stretched to the full range of each image."""

    condition: ConditionName = "depth"
    bits: Literal[8, 16] = Field(
        8, description="of a pixel; 8 is what ControlNet takes, 16 keeps steps that 8 merge"
    )

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return a map (h, w), uint8 or uint16, with the inverse depths of black and of white.

        Refuses a flat depth, rule ``flat_depth``.
        """
        stretched = nearness(found)
        if isinstance(stretched, Refusal):
            return stretched
        white, kind = (255, np.uint8) if self.bits == 8 else (65535, np.uint16)
        grey = (stretched * np.float32(white)).clip(0, white).astype(kind)
        ends = {"black": round(float(found.min()), 4), "white": round(float(found.max()), 4)}
        return Annotation(map=grey, parameters=ends)


class DepthSpec(NearnessSpec):
    """Nearness by MiDaS."""

    detector: Literal["depth"] = "depth"
    checkpoint: MidasCheckpoint = "midas_dpt_hybrid"

    @property
    def network(self) -> MidasNetwork:
        """MiDaS; shared with a `detectors.normal.NormalSpec`."""
        return MidasNetwork(checkpoint=self.checkpoint)


def nearness(depth: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"] | Refusal:
    """Stretch an inverse depth to 0..1, or refuse a flat one: it would be divided by nothing."""
    above = depth - depth.min()
    span = float(above.max())
    if span <= FLAT:
        return Refusal(rule="flat_depth", value=span, threshold=FLAT)
    stretched: np.ndarray = above / above.max()
    return stretched
