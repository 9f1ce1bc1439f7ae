"""What a captioner is: a frozen spec that a recipe holds, and a worker that the spec loads."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import UInt8

Image: TypeAlias = UInt8[np.ndarray, "h w 3"]


class Captioner(Protocol):
    """Loaded and ready."""

    def __call__(self, images: Sequence[Image], found: Sequence[str | None]) -> list[str | None]:
        """Caption images.

        Args:
            images: uint8 RGB (h, w, 3).
            found: the text that lay beside each image, or None.

        Returns:
            A caption for each image; None where there is none and the spec asks to reject the
            image.
        """
        ...


@runtime_checkable
class CaptionerSpec(Protocol):
    """Parameters of a captioner: frozen, picklable, part of a recipe's fingerprint."""

    def load(self, device: str) -> Captioner:
        """Load what the captioner needs onto `device`."""
        ...
