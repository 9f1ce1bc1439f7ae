"""People by ViTPose++ (Xu et al., 2023): 17 keypoints, in boxes that RT-DETR finds."""

from typing import Literal

from detectors.base import ConditionName, Network, Precision
from detectors.keypoints import BoxedPoseSpec, BoxesNetwork

VitposeCheckpoint = Literal["vitpose_plus_base", "vitpose_plus_small"]
BoxesCheckpoint = Literal["rtdetr_r50vd"]


class VitposeNetwork(BoxesNetwork):
    """RT-DETR finds people, ViTPose++'s expert for COCO their keypoints."""

    checkpoint: VitposeCheckpoint = "vitpose_plus_base"
    boxes: BoxesCheckpoint = "rtdetr_r50vd"

    def load(self, device: str, precision: Precision) -> Network:
        """Load both networks; see `BoxesNetwork` for their findings."""
        from detectors.networks.vitpose import Vitpose

        return Vitpose(self.checkpoint, self.boxes, device, precision)


class VitposeSpec(BoxedPoseSpec):
    """COCO's joints, drawn as OpenPose's skeleton with the neck between the shoulders."""

    detector: Literal["vitpose"] = "vitpose"
    condition: ConditionName = "vitpose"
    checkpoint: VitposeCheckpoint = "vitpose_plus_base"
    boxes: BoxesCheckpoint = "rtdetr_r50vd"

    @property
    def network(self) -> VitposeNetwork:
        """ViTPose++; shared by all thresholds."""
        return VitposeNetwork(checkpoint=self.checkpoint, boxes=self.boxes)
