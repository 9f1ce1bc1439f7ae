"""Normals by TIPSv2 (Google DeepMind, 2026), which may be used freely, unlike NormalBae's."""

from typing import Literal

from detectors.base import ConditionName, Network, NetworkSpec, Precision
from detectors.normal import NetworkNormalsSpec

Tipsv2Checkpoint = Literal["tipsv2_b14_dpt"]


class Tipsv2Network(NetworkSpec):
    """TIPSv2's image encoder, base, and its head for normals."""

    checkpoint: Tipsv2Checkpoint = "tipsv2_b14_dpt"

    def load(self, device: str, precision: Precision) -> Network:
        """Load the network; its findings are normals (left, up, back), float32 (h, w, 3)."""
        from detectors.networks.tipsv2 import Tipsv2Normals

        return Tipsv2Normals(self.checkpoint, device, precision)


class NormalTipsv2Spec(NetworkNormalsSpec):
    """Normals by TIPSv2."""

    detector: Literal["normal_tipsv2"] = "normal_tipsv2"
    condition: ConditionName = "normal_tipsv2"
    checkpoint: Tipsv2Checkpoint = "tipsv2_b14_dpt"

    @property
    def network(self) -> Tipsv2Network:
        """TIPSv2."""
        return Tipsv2Network(checkpoint=self.checkpoint)
