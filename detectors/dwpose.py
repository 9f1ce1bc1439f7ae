"""People with hands and faces by DWPose (Yang et al., 2023): COCO-WholeBody's 133 keypoints."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from detectors.base import ConditionName, Network, Precision
from detectors.keypoints import BoxedPoseSpec, BoxesNetwork, Person, to_openpose18
from detectors.skeleton import Canvas, draw_faces, draw_hands, draw_people

DwposeCheckpoint = Literal["dwpose_l_384"]
BoxesCheckpoint = Literal["yolox_l"]

BODY, FEET, FACE, HANDS = slice(0, 17), slice(17, 23), slice(23, 91), slice(91, 133)
"""Places in COCO-WholeBody: COCO's 17 joints, 6 of feet, 68 of a face, 21 of each hand, the left
one's first."""


class DwposeNetwork(BoxesNetwork):
    """YOLOX finds people, a distilled RTMPose their keypoints; in fp32, whatever is asked for."""

    checkpoint: DwposeCheckpoint = "dwpose_l_384"
    boxes: BoxesCheckpoint = "yolox_l"

    def load(self, device: str, precision: Precision) -> Network:
        """Load both networks; see `BoxesNetwork` for their findings."""
        from detectors.networks.dwpose import Dwpose

        return Dwpose(self.checkpoint, self.boxes, device)


class DwposeSpec(BoxedPoseSpec):
    """Bodies as OpenPose's skeletons, with hands and faces; the rule counts all 133 keypoints."""

    detector: Literal["dwpose"] = "dwpose"
    condition: ConditionName = "dwpose"
    checkpoint: DwposeCheckpoint = "dwpose_l_384"
    boxes: BoxesCheckpoint = "yolox_l"
    hands: bool = Field(True, description="draw them")
    face: bool = Field(True, description="draw it")

    @property
    def network(self) -> DwposeNetwork:
        """DWPose; shared by all thresholds."""
        return DwposeNetwork(checkpoint=self.checkpoint, boxes=self.boxes)

    def draw(self, people: Sequence[Person], size: tuple[int, int]) -> Canvas:
        """Draw people on black: all bodies, then all hands, then all faces."""
        bodies = [to_openpose18(person.keypoints[BODY]) for person in people]
        canvas = draw_people(bodies, size, self.rendering)
        if self.hands:
            pairs = [person.keypoints[HANDS].reshape(2, 21, 3) for person in people]
            draw_hands(canvas, [hand for pair in pairs for hand in pair])
        if self.face:
            draw_faces(canvas, [person.keypoints[FACE] for person in people])
        return canvas
