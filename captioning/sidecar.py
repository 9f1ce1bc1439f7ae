"""Captions that lie beside the images: a .txt, a .json or a parquet column."""

from typing import Any, Literal

from pydantic import Field

from captioning.base import Caption, Spec
from captioning.clean import CLEANING_VERSION, clean


class SidecarSpec(Spec):
    """Take the text found beside the image, cleaned.

    An image without text keeps the empty caption, which the paper's training makes of half of all
    prompts anyway, or is rejected.
    """

    captioner: Literal["sidecar"] = "sidecar"
    when_missing: Literal["empty", "reject"] = "empty"
    max_characters: int = Field(2000, ge=1, description="longer texts are cut; unit: characters")

    @property
    def identity(self) -> dict[str, Any]:
        """Fields and the version of the cleaning."""
        return {**self.model_dump(mode="json"), "cleaning": CLEANING_VERSION}

    def choose(self, found: str | None, generated: str | None) -> Caption | None:
        """Return the cleaned text; None for an empty one where the spec rejects it."""
        text = sidecar_text(found, self.max_characters)
        if not text and self.when_missing == "reject":
            return None
        return Caption(text=text, source="sidecar" if text else "none", sidecar=text)


def sidecar_text(found: str | None, most: int) -> str:
    """Return a found text cleaned and cut to `most` characters; "" where there is none."""
    return clean(found or "")[:most].rstrip()
