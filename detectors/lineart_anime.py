"""Line drawings of cartoons (paper, section 3.5, "Cartoon Line Drawing")."""

from typing import Any, Literal

import numpy as np

from detectors.base import (
    Annotation,
    ConditionName,
    Image,
    Network,
    NetworkSpec,
    Precision,
    Result,
    Spec,
)

LineartCheckpoint = Literal["anime2sketch"]


class Anime2SketchNetwork(NetworkSpec):
    """Anime2Sketch."""

    checkpoint: LineartCheckpoint = "anime2sketch"

    def load(self, device: str, precision: Precision) -> Network:
        """Load the network; its findings are white lines on black, uint8 (h, w)."""
        from detectors.networks.anime2sketch import Anime2Sketch

        return Anime2Sketch(self.checkpoint, device, precision)


class LineartAnimeSpec(Spec):
    """White lines on black, as an illustrator would have inked them."""

    detector: Literal["lineart_anime"] = "lineart_anime"
    condition: ConditionName = "lineart_anime"
    checkpoint: LineartCheckpoint = "anime2sketch"

    @property
    def network(self) -> Anime2SketchNetwork:
        """Anime2Sketch."""
        return Anime2SketchNetwork(checkpoint=self.checkpoint)

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return the map (h, w), 0..255."""
        return Annotation(map=found)
