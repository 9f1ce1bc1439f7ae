"""People as keypoints, and the rule by which an image of them is kept (paper, section 3.5).

"An image with human must have at least 30% of the key points of the whole body detected."
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float32, Float64
from pydantic import Field

from detectors.base import (
    Annotation,
    Image,
    NetworkSpec,
    Refusal,
    Result,
    Spec,
    keep_or_refuse,
)
from detectors.skeleton import Canvas, Rendering, draw_people

OPENPOSE18 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow",
    "left_wrist", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear",
)  # fmt: skip
"""The joints of OpenPose's COCO body, in its order."""

COCO17 = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
    "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
"""The joints of COCO's annotations, in their order."""

People = Literal["any", "best", "every"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One person.

    Attributes:
        keypoints: x and y in pixels of the image, score; a row a joint of the schema, NaN where the
            joint was not found.
        score: of the person, by the network's own measure.
    """

    keypoints: Float64[np.ndarray, "joints 3"]
    score: float

    @property
    def found(self) -> int:
        """Number of joints that were found."""
        return int(np.isfinite(self.keypoints[:, 0]).sum())

    @property
    def fraction(self) -> float:
        """Share of the schema's joints that were found, 0..1."""
        return self.found / len(self.keypoints)

    def to_json(self) -> dict[str, Any]:
        """Return what the sample keeps: [x, y, score] or null for each joint, and the score."""
        rows = (
            [round(float(value), 3) for value in row] if np.isfinite(row[0]) else None
            for row in self.keypoints
        )
        return {"keypoints": list(rows), "score": round(self.score, 4)}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Person":
        """Return the person that `to_json` kept, to the digits that it keeps."""
        rows = [[math.nan] * 3 if row is None else row for row in kept["keypoints"]]
        return cls(keypoints=np.array(rows, np.float64), score=kept["score"])


class PoseSpec(Spec):
    """Skeletons of the people in an image, where enough of them is seen."""

    thresholds: ClassVar[frozenset[str]] = frozenset(("fraction", "people"))

    fraction: float = Field(
        0.30, ge=0, le=1, description="of the body's keypoints that a person must show"
    )
    people: People = Field(
        "any", description="who must show them: any person, the best scored one, or every one"
    )
    rendering: Rendering = Field(
        "v1.1", description="v1.1: dimmed limbs under bright joints; v1.0: limbs blended over them"
    )

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return a map (h, w, 3) of all people, with their joints; refuses by rule ``keypoints``.

        The people are kept either way, so that another fraction can be asked later.
        """
        people: Sequence[Person] = self.people_in(found)
        fractions = [round(person.fraction, 4) for person in people]
        kept = {"people": [person.to_json() for person in people], "fractions": fractions}
        drawn = self.draw(people, image.shape[:2])
        return keep_or_refuse(self, Annotation(map=drawn, parameters=kept))

    def draw(self, people: Sequence[Person], size: tuple[int, int]) -> Canvas:
        """Draw people on black; size is (height, width) in pixels."""
        bodies = [to_openpose18(person.keypoints) for person in people]
        return draw_people(bodies, size, self.rendering)

    def refuse(self, parameters: Mapping[str, Any]) -> Refusal | None:
        """Refuse by rule ``keypoints`` where too little is seen of the people."""
        people = [Person.from_json(person) for person in parameters["people"]]
        decides = deciding_person(people, self.people)
        if decides is not None and decides.found >= needed(self.fraction, len(decides.keypoints)):
            return None
        value = 0.0 if decides is None else round(decides.fraction, 4)
        return Refusal(rule="keypoints", value=value, threshold=self.fraction)

    def people_in(self, found: Any) -> Sequence[Person]:
        """Return the people in a network's finding; a spec with thresholds of its own chooses."""
        people: Sequence[Person] = found
        return people


class BoxesNetwork(NetworkSpec):
    """Two networks: one finds people's boxes, the other keypoints in them.

    Their findings are people, float32 (n, joints, 3): x, y in pixels and a score; and the score of
    each person's box, float32 (n,).
    """

    boxes: str

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Both networks' files."""
        return self.checkpoint, self.boxes


class BoxedPoseSpec(PoseSpec):
    """People whose boxes a network of its own has found, see `BoxesNetwork`."""

    person_score: float = Field(0.3, ge=0.1, le=1, description="lowest of a person's box")
    joint_score: float = Field(0.3, ge=0, le=1, description="lowest of a keypoint that is found")

    def people_in(self, found: Any) -> Sequence[Person]:
        """Return the people above the thresholds, best first."""
        return people_above(*found, person_score=self.person_score, joint_score=self.joint_score)


def people_above(
    bodies: Float32[np.ndarray, "n joints 3"],
    scores: Float32[np.ndarray, " n"],
    *,
    person_score: float,
    joint_score: float,
) -> list[Person]:
    """Return the people, best first, whose score is high enough, with the joints whose is.

    Args:
        bodies: x, y in pixels and a score; a row a joint.
        scores: of each person.
        person_score: lowest of a person that counts.
        joint_score: lowest of a joint that is found; whoever has none is nobody.
    """
    people = []
    for at in np.argsort(-scores, kind="stable"):
        keypoints = bodies[at].astype(np.float64)
        keypoints[keypoints[:, 2] < joint_score] = np.nan
        person = Person(keypoints=keypoints, score=float(scores[at]))
        if person.score >= person_score and person.found:
            people.append(person)
    return people


def needed(fraction: float, joints: int) -> int:
    """Return how many of `joints` are at least `fraction` of them: 6 of 18, 6 of 17, 40 of 133."""
    return math.ceil(round(fraction * joints, 6))


def deciding_person(people: Sequence[Person], whose: People) -> Person | None:
    """Return the person whose joints decide, or None where there is nobody."""
    if not people:
        return None
    if whose == "best":
        return max(people, key=lambda person: person.score)
    choose = max if whose == "any" else min
    return choose(people, key=lambda person: person.found)


def to_openpose18(keypoints: Float64[np.ndarray, "joints 3"]) -> Float64[np.ndarray, "18 3"]:
    """Return a person in OpenPose's joints; COCO's lack the neck, which lies between the shoulders.

    A neck needs both shoulders; its score is the lower of theirs.
    """
    if len(keypoints) == len(OPENPOSE18):
        return keypoints
    made = np.full((len(OPENPOSE18), 3), np.nan)
    for at, name in enumerate(OPENPOSE18):
        if name != "neck":
            made[at] = keypoints[COCO17.index(name)]
    shoulders = keypoints[[COCO17.index("left_shoulder"), COCO17.index("right_shoulder")]]
    made[OPENPOSE18.index("neck")] = [*shoulders[:, :2].mean(0), shoulders[:, 2].min()]
    return made
