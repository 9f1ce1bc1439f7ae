"""People by MoveNet MultiPose: 17 keypoints, up to six people, a few milliseconds on a CPU."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from detectors.base import ConditionName, Network, NetworkSpec, Precision
from detectors.keypoints import COCO17, Person, PoseSpec, people_above

MoveNetCheckpoint = Literal["movenet_multipose"]


class MoveNetNetwork(NetworkSpec):
    """MoveNet MultiPose Lightning."""

    checkpoint: MoveNetCheckpoint = "movenet_multipose"

    def load(self, device: str, precision: Precision) -> Network:
        """Load the network, which runs on the CPU whatever the device.

        Its findings are candidates, float32 (6, 52): x, y, score a joint, and the person's score.
        """
        from detectors.networks.movenet import MoveNet

        return MoveNet(self.checkpoint)


class MoveNetSpec(PoseSpec):
    """COCO's joints, drawn as OpenPose's skeleton with the neck between the shoulders."""

    detector: Literal["movenet"] = "movenet"
    condition: ConditionName = "movenet"
    checkpoint: MoveNetCheckpoint = "movenet_multipose"
    person_score: float = Field(0.1, ge=0, le=1, description="lowest of a candidate that counts")
    joint_score: float = Field(0.2, ge=0, le=1, description="lowest of a joint that is found")

    @property
    def network(self) -> MoveNetNetwork:
        """MoveNet; shared by all thresholds."""
        return MoveNetNetwork(checkpoint=self.checkpoint)

    def people_in(self, found: Any) -> Sequence[Person]:
        """Return the candidates above the thresholds, best first."""
        return people_above(
            found[:, :-1].reshape(-1, len(COCO17), 3),
            found[:, -1],
            person_score=self.person_score,
            joint_score=self.joint_score,
        )
