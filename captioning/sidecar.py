"""Captions that lie beside the images: a .txt, a .json or a parquet column."""

import unicodedata
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from captioning.base import Image


class SidecarSpec(BaseModel):
    """Take the text found beside the image, cleaned.

    An image without text keeps the empty caption, which the paper's training makes of half of all
    prompts anyway, or is rejected.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    captioner: Literal["sidecar"] = "sidecar"
    when_missing: Literal["empty", "reject"] = "empty"
    max_characters: int = Field(2000, ge=1, description="longer texts are cut; unit: characters")

    def load(self, device: str) -> "Sidecar":
        """Return the captioner; it needs no device."""
        return Sidecar(self)


class Sidecar:
    """Cleans what was found; looks at no picture."""

    def __init__(self, spec: SidecarSpec) -> None:
        self._spec = spec

    def __call__(self, images: Sequence[Image], found: Sequence[str | None]) -> list[str | None]:
        """Return the cleaned texts; None for an empty one where the spec rejects it."""
        missing = "" if self._spec.when_missing == "empty" else None
        texts = [clean(text or "")[: self._spec.max_characters].rstrip() for text in found]
        return [text or missing for text in texts]


def clean(text: str) -> str:
    """Make one printable line: control characters and runs of white space become one space."""
    printable = (" " if unicodedata.category(letter) in ("Cc", "Cs") else letter for letter in text)
    return " ".join("".join(printable).split())
