"""Soft edges by TEED (Soria et al., 2023), a network of 58,910 weights."""

from typing import Literal

from detectors.base import ConditionName, Network, NetworkSpec, Precision
from detectors.soft_edges import SoftEdgesSpec


class TeedNetwork(NetworkSpec):
    """TEED, trained on BIPED."""

    checkpoint: Literal["teed"] = "teed"

    def load(self, device: str, precision: Precision) -> Network:
        """Load the network; its findings are edge probabilities, float32 (h, w), 0..1."""
        from detectors.networks.teed import Teed

        return Teed(self.checkpoint, device, precision)


class TeedSpec(SoftEdgesSpec):
    """Edges by TEED; controlnet_aux shows them `safe` by default."""

    detector: Literal["teed"] = "teed"
    condition: ConditionName = "teed"

    @property
    def network(self) -> TeedNetwork:
        """TEED."""
        return TeedNetwork()
