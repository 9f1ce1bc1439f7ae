"""Straight lines by M-LSD (paper, section 3.5, "Hough Line")."""

from typing import Any, Literal

import numpy as np
from jaxtyping import Float64
from pydantic import Field

from detectors.base import (
    ConditionName,
    Image,
    Network,
    NetworkSpec,
    Precision,
    Result,
)
from detectors.lines import LinesSpec

MlsdCheckpoint = Literal["mlsd_large", "mlsd_tiny"]

MAX_LINES = 1000
"""Centres that the network hands on, so that specs with other thresholds share it."""


class MlsdNetwork(NetworkSpec):
    """M-LSD with one of its two sizes of layers."""

    checkpoint: MlsdCheckpoint = "mlsd_large"
    side: int | None = None

    def load(self, device: str, precision: Precision) -> Network:
        """Load the network; its findings are lines with scores, float64 (n, 5), best first."""
        from detectors.networks.mlsd import Mlsd

        return Mlsd(self.checkpoint, self.side, MAX_LINES, device, precision)


class MlsdSpec(LinesSpec):
    """White lines of 1 px; the defaults are ControlNet's annotator's."""

    detector: Literal["mlsd"] = "mlsd"
    condition: ConditionName = "mlsd"
    checkpoint: MlsdCheckpoint = "mlsd_large"
    side: int | None = Field(
        None,
        ge=64,
        multiple_of=16,
        description="of a square that the network sees in place of the image; pixels. None: the "
        "image's own size, as ControlNet's annotator; 512: the size that it was trained at",
    )
    score: float = Field(0.1, ge=0, le=1, description="a line counts above this")
    distance: float = Field(
        0.1, ge=0, description="and when its ends are farther apart; pixels at half the size"
    )
    top_k: int = Field(200, ge=1, le=MAX_LINES, description="lines at most, best first")

    @property
    def network(self) -> MlsdNetwork:
        """M-LSD; shared by specs that differ in thresholds only."""
        return MlsdNetwork(checkpoint=self.checkpoint, side=self.side)

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return a map (h, w) of 0 and 255, with every line as x1, y1, x2, y2 (pixels), score."""
        height, width = image.shape[:2]
        lines = self._kept(found)
        lines[:, :4] *= 2  # the network's map has half the size of its input
        if self.side is not None:
            lines[:, :4] *= np.array([width, height, width, height]) / self.side
        kept = [
            [*(round(value, 1) for value in ends), round(score, 4)]
            for *ends, score in lines.tolist()
        ]
        return self.drawn(lines[:, :4], (height, width), kept)

    def _kept(self, found: Float64[np.ndarray, "n 5"]) -> Float64[np.ndarray, "m 5"]:
        best = found[: self.top_k]
        length = np.hypot(best[:, 2] - best[:, 0], best[:, 3] - best[:, 1])
        kept: np.ndarray = best[(best[:, 4] > self.score) & (length > self.distance)]
        return kept
