"""People by ViTPose++ (Xu et al., 2023): 17 keypoints, in boxes that RT-DETR finds."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from detectors.base import ConditionName, Network, NetworkSpec, Precision
from detectors.keypoints import Person, PoseSpec, people_above

VitposeCheckpoint = Literal["vitpose_plus_base", "vitpose_plus_small"]
BoxesCheckpoint = Literal["rtdetr_r50vd"]


class VitposeNetwork(NetworkSpec):
    """RT-DETR finds people, ViTPose++'s expert for COCO their keypoints."""

    checkpoint: VitposeCheckpoint = "vitpose_plus_base"
    boxes: BoxesCheckpoint = "rtdetr_r50vd"

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Both networks' folders."""
        return self.checkpoint, self.boxes

    def load(self, device: str, precision: Precision) -> Network:
        """Load both networks.

        Their findings are people, float32 (n, 17, 3): x, y in pixels and a score; and the score of
        each person's box, float32 (n,).
        """
        from detectors.networks.vitpose import Vitpose

        return Vitpose(self.checkpoint, self.boxes, device, precision)


class VitposeSpec(PoseSpec):
    """COCO's joints, drawn as OpenPose's skeleton with the neck between the shoulders."""

    detector: Literal["vitpose"] = "vitpose"
    condition: ConditionName = "vitpose"
    checkpoint: VitposeCheckpoint = "vitpose_plus_base"
    boxes: BoxesCheckpoint = "rtdetr_r50vd"
    person_score: float = Field(0.3, ge=0.1, le=1, description="lowest of a person's box")
    joint_score: float = Field(0.3, ge=0, le=1, description="lowest of a keypoint that is found")

    @property
    def network(self) -> VitposeNetwork:
        """ViTPose++; shared by all thresholds."""
        return VitposeNetwork(checkpoint=self.checkpoint, boxes=self.boxes)

    def people_in(self, found: Any) -> Sequence[Person]:
        """Return the people above the thresholds, best first."""
        return people_above(*found, person_score=self.person_score, joint_score=self.joint_score)
