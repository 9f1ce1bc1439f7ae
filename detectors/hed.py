"""Soft edges by HED (paper, section 3.5, "HED Boundary")."""

from typing import Literal

from pydantic import Field

from detectors.base import ConditionName, Network, NetworkSpec, Precision
from detectors.soft_edges import SoftEdgesSpec

HedCheckpoint = Literal["hed_bsds500", "hed_bsds500_fused", "controlnet_hed"]


class HedNetwork(NetworkSpec):
    """HED with one of the checkpoints that fit its layers."""

    checkpoint: HedCheckpoint = "hed_bsds500"

    def load(self, device: str, precision: Precision) -> Network:
        """Load the network; its findings are edge probabilities, float32 (h, w), 0..1."""
        from detectors.networks.hed import Hed

        return Hed(self.checkpoint, device, precision)


class HedSpec(SoftEdgesSpec):
    """Edges by HED."""

    detector: Literal["hed"] = "hed"
    condition: ConditionName = "hed"
    checkpoint: HedCheckpoint = Field(
        "hed_bsds500",
        description="hed_bsds500: trained anew by the authors' recipe, sides averaged; "
        "hed_bsds500_fused: the same with their learned fusion, as ControlNet 1.0 computed it; "
        "controlnet_hed: ControlNet 1.1's, sides averaged",
    )

    @property
    def network(self) -> HedNetwork:
        """HED."""
        return HedNetwork(checkpoint=self.checkpoint)
