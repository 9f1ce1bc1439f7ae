"""Soft edges by PiDiNet, as in ControlNet 1.1, with a twentieth of the weights of HED."""

from typing import Literal

from detectors.base import ConditionName, Network, NetworkSpec, Precision
from detectors.soft_edges import SoftEdgesSpec


class PidinetNetwork(NetworkSpec):
    """PiDiNet at its full width."""

    checkpoint: Literal["pidinet"] = "pidinet"

    def load(self, device: str, precision: Precision) -> Network:
        """Load the network; its findings are edge probabilities, float32 (h, w), 0..1."""
        from detectors.networks.pidinet import Pidinet

        return Pidinet(self.checkpoint, device, precision)


class PidinetSpec(SoftEdgesSpec):
    """Edges by PiDiNet."""

    detector: Literal["pidinet"] = "pidinet"
    condition: ConditionName = "pidinet"

    @property
    def network(self) -> PidinetNetwork:
        """PiDiNet."""
        return PidinetNetwork()
