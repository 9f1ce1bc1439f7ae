"""Captions by BLIP, alone or together with the texts that lie beside the images.

Source: Li et al., BLIP (2022); the paper captioned its training images with it (section 4).
"""

from typing import Any, Literal

from pydantic import Field

from captioning import weights
from captioning.base import Caption, Network
from captioning.clean import CLEANING_VERSION, clean_generated
from captioning.generated import LoadedSpec

_OF_THE_NETWORK = {"precision", "beams", "prefix", "max_new_tokens", "batch_size"}


class BlipSpec(LoadedSpec):
    """Caption with BLIP; an image whose caption is empty is rejected."""

    captioner: Literal["blip", "sidecar_or_blip", "blip_with_sidecar_kept"]
    model: str = weights.BASE
    precision: Literal["fp32", "tf32", "bf16"] = Field(
        "fp32", description="tf32: fp32, with products of 10 bits where a GPU has them"
    )
    beams: int = Field(1, ge=1, le=16, description="1: greedy")
    prefix: str = Field("", max_length=200, description="text that every caption begins with")
    max_new_tokens: int = Field(20, ge=1, le=200, description="length after the prefix; tokens")
    batch_size: int = Field(
        16, ge=1, le=4096, description="images at once, filled up; another number may move a text"
    )

    @property
    def identity(self) -> dict[str, Any]:
        """All but where the checkpoint lies, and the version of the cleaning."""
        fields = self.model_dump(mode="json", exclude={"model", "revision"})
        return {**fields, **self.network_identity, "cleaning": CLEANING_VERSION}

    @property
    def network_identity(self) -> dict[str, Any]:
        """What changes a generated text: parameters, and what stands for the weights.

        Raises:
            WeightsError: the checkpoint is a folder that is not there or not whole.
        """
        fields = self.model_dump(mode="json", include=_OF_THE_NETWORK)
        return {**fields, "weights": weights.identity(self.model, self.revision)}

    @property
    def called(self) -> str:
        """BLIP, whichever its checkpoint."""
        return "BLIP"

    @property
    def network(self) -> "BlipSpec":
        """This spec: its fields are those of the network too."""
        return self

    def load(self, device: str) -> Network:
        """Load BLIP onto `device`; raises WeightsError where its checkpoint cannot be had."""
        from captioning.blip_network import Blip

        folder = weights.locate(self.model, self.revision)
        return Blip(
            folder,
            device,
            precision=self.precision,
            beams=self.beams,
            prefix=self.prefix,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
        )

    def said(self, generated: str, sidecar: str) -> Caption | None:
        """Return the caption that BLIP's text is; None where nothing but a prefix is said."""
        blip = clean_generated(generated)
        if blip.lower() == clean_generated(self.prefix).lower():  # nothing is said beyond it
            return None
        return Caption(text=blip, source="blip", sidecar=sidecar, blip=blip)
