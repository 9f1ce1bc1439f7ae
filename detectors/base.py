"""What a detector is: a frozen spec that a recipe holds, and a worker that the spec loads."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import UInt8

Image: TypeAlias = UInt8[np.ndarray, "h w 3"]
Map: TypeAlias = UInt8[np.ndarray, "h w *c"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """A condition map and what made it.

    Attributes:
        map: uint8, (h, w) or (h, w, 3), 0..255, of the image's own height and width.
        parameters: every value that was drawn or derived for this image; JSON types.
    """

    map: Map
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A detector's finding that an image gives no condition.

    Attributes:
        rule: short stable reason, for example ``keypoints``.
        value: the measured number.
        threshold: the number that it was judged by.
    """

    rule: str
    value: float
    threshold: float


Result: TypeAlias = Annotation | Refusal


class Detector(Protocol):
    """Loaded and ready: networks on a device, or none."""

    def __call__(
        self, images: Sequence[Image], generators: Sequence[np.random.Generator]
    ) -> list[Result]:
        """Annotate images; one generator an image is its only source of randomness."""
        ...


@runtime_checkable
class DetectorSpec(Protocol):
    """Parameters of a detector: frozen, picklable, part of a recipe's fingerprint."""

    @property
    def condition(self) -> str:
        """Name of the condition: the middle part of the member ``<key>.<condition>.png``."""
        ...

    def load(self, device: str) -> Detector:
        """Load what the detector needs onto `device`, for example ``cpu`` or ``cuda:0``."""
        ...


def generator_for(sha256: str, condition: str, seed: int) -> np.random.Generator:
    """Return the generator of one image and condition.

    Keyed by content, so a draw depends neither on the order of images nor on worker, batch or
    resume.

    Args:
        sha256: hex digest of the source image's bytes.
        condition: name of the condition.
        seed: the recipe's seed.
    """
    key = hashlib.sha256(f"{sha256}\n{condition}\n{seed}".encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
