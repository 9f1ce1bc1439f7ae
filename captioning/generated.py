"""What captioners with a network share: when it is asked, and which text is taken."""

from typing import Self

from pydantic import Field, model_validator

from captioning import weights
from captioning.base import Caption, Spec
from captioning.sidecar import sidecar_text


class GeneratedSpec(Spec):
    """``NAME`` takes the network's text of every image, and no text from beside it.

    ``sidecar_or_NAME`` takes the text beside an image, and asks only for images without one.
    ``NAME_with_sidecar_kept`` asks for every image, and keeps the text beside it in the json.
    """

    captioner: str
    max_characters: int = Field(
        2000, ge=1, description="longer texts, but for BLIP's own, are cut; unit: characters"
    )

    def wants(self, found: str | None) -> bool:
        """Say whether the network must look at an image: unless its own text is taken."""
        takes_it = self.captioner.startswith("sidecar_or_")
        return not (takes_it and sidecar_text(found, self.max_characters))

    def choose(self, found: str | None, generated: str | None) -> Caption | None:
        """Return the caption by the spec's sources, or None where there is none."""
        kept = "sidecar" in self.captioner
        sidecar = sidecar_text(found, self.max_characters) if kept else ""
        if generated is not None:
            return self.said(generated, sidecar)
        return Caption(text=sidecar, source="sidecar", sidecar=sidecar) if sidecar else None

    def said(self, generated: str, sidecar: str) -> Caption | None:
        """Return the caption that the network's text is; None where it says nothing."""
        raise NotImplementedError


class LoadedSpec(GeneratedSpec):
    """A captioner whose checkpoint is loaded here."""

    model: str = Field(
        description="a hub id, or a local folder: a path that begins with / ./ ../ or ~"
    )
    revision: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{40}$",
        description="commit of the hub's repository; default the one that is pinned here",
    )

    @property
    def called(self) -> str:
        """What the captioner is called in words."""
        return str(self.model)

    @model_validator(mode="after")
    def _is_pinned(self) -> Self:
        weights.require_pin(self.model, self.revision)
        return self
