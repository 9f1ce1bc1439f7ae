"""Soft edges by PiDiNet, as in ControlNet 1.1, with a twentieth of the weights of HED."""

from typing import Any, Literal

import numpy as np
from pydantic import Field

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
from detectors.hed import quantised, to_grey


class PidinetNetwork(NetworkSpec):
    """PiDiNet at its full width."""

    checkpoint: Literal["pidinet"] = "pidinet"

    def load(self, device: str, precision: Precision) -> Network:
        """Load the network; its findings are edge probabilities, float32 (h, w), 0..1."""
        from detectors.networks.pidinet import Pidinet

        return Pidinet(self.checkpoint, device, precision)


class PidinetSpec(Spec):
    """Edge probability as grey."""

    detector: Literal["pidinet"] = "pidinet"
    condition: ConditionName = "pidinet"
    safe: bool = Field(
        False,
        description="only the levels 0, 127 and 255: soft maps hide a grey copy of the image",
    )

    @property
    def network(self) -> PidinetNetwork:
        """PiDiNet."""
        return PidinetNetwork()

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return the map (h, w)."""
        return Annotation(map=to_grey(quantised(found) if self.safe else found))
