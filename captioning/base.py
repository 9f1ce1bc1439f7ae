"""What a captioner is: a frozen spec that a recipe holds, and perhaps a network that it loads.

A caption is made in two steps, like a condition. The network, where the spec has one, turns images
into texts, in batches on a device, and only those images whose text the spec lacks. `Spec.choose`
then takes the caption from what was found beside an image and what was generated: pure, anywhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from jaxtyping import UInt8
from pydantic import BaseModel, ConfigDict

Image: TypeAlias = UInt8[np.ndarray, "h w 3"]
Origin: TypeAlias = Literal["sidecar", "blip", "endpoint", "florence2", "qwen3_vl", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A chosen caption, and the texts that it was chosen from.

    Attributes:
        text: the caption; one line, may be empty.
        source: where it is from; ``none``: there was no text.
        sidecar: what lay beside the image, cleaned; "" where nothing did or nothing was kept.
        blip: what BLIP said, cleaned; "" where it was not asked.
        lengths: the same image in other lengths, ``short`` and ``long``; of captioners that give
            such.
    """

    text: str
    source: Origin
    sidecar: str = ""
    blip: str = ""
    lengths: Mapping[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, str]:
        """Return what a sample's json holds of it."""
        kept = {"text": self.text, "source": self.source, "sidecar": self.sidecar}
        return {**kept, "blip": self.blip, **self.lengths}


class Network(Protocol):
    """Loaded and ready on a device."""

    def prepare(self, image: Image) -> Any:
        """Bring one image, uint8 RGB (h, w, 3), to what the network takes; safe in any thread."""
        ...

    def __call__(self, prepared: Sequence[Any]) -> list[str]:
        """Return a text for each prepared image, at most a batch of them, in order, uncleaned.

        An image's text does not depend on the others in its batch.
        """
        ...


class NetworkSpec(Protocol):
    """What identifies a captioning network."""

    @property
    def batch_size(self) -> int:
        """Images that the network is given at once."""
        ...

    @property
    def network_identity(self) -> dict[str, Any]:
        """All that changes a generated text, the weights' identity too; JSON types."""
        ...

    def load(self, device: str) -> Network:
        """Load the network onto `device`, for example ``cpu`` or ``cuda``.

        Raises:
            WeightsError: the checkpoint is not here and cannot be had.
        """
        ...


class Spec(BaseModel):
    """Parameters of a captioner: frozen, picklable, part of a recipe's fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def identity(self) -> dict[str, Any]:
        """What stands for the captioner in a recipe's fingerprint; JSON types."""
        raise NotImplementedError

    @property
    def network(self) -> NetworkSpec | None:
        """The network that generates texts, or None."""
        return None

    @property
    def on_device(self) -> bool:
        """Whether the network is loaded here, onto a device, by torch."""
        return self.network is not None

    def wants(self, found: str | None) -> bool:
        """Say whether an image needs a generated text, given what lay beside it."""
        return False

    @property
    def wants_all(self) -> bool:
        """Whether every image needs a generated text, whatever lies beside it."""
        return self.wants("a text")

    def choose(self, found: str | None, generated: str | None) -> Caption | None:
        """Choose an image's caption.

        Args:
            found: the text beside the image.
            generated: the network's text; None where it was not wanted.

        Returns:
            The caption, or None where the image has none and is to be rejected.
        """
        raise NotImplementedError
