"""Depth by Depth Anything V2 (Yang et al., 2024), with a fifth of MiDaS's weights."""

from typing import Literal

from detectors.base import Network, NetworkSpec, Precision
from detectors.depth import NearnessSpec

DepthAnythingCheckpoint = Literal["depth_anything_v2_small"]


class DepthAnythingNetwork(NetworkSpec):
    """Depth Anything V2, small: the only size whose licence lets everyone use it."""

    checkpoint: DepthAnythingCheckpoint = "depth_anything_v2_small"

    def load(self, device: str, precision: Precision) -> Network:
        """Load the network; its findings are inverse depths, float32 (h, w), no unit."""
        from detectors.networks.depth_anything import DepthAnything

        return DepthAnything(self.checkpoint, device, precision)


class DepthAnythingSpec(NearnessSpec):
    """Nearness by Depth Anything V2.

    It gives no normals: `detectors.normal.NormalSpec` weighs slopes in MiDaS's unit, another one.
    """

    detector: Literal["depth_anything"] = "depth_anything"
    checkpoint: DepthAnythingCheckpoint = "depth_anything_v2_small"

    @property
    def network(self) -> DepthAnythingNetwork:
        """Depth Anything V2."""
        return DepthAnythingNetwork(checkpoint=self.checkpoint)
