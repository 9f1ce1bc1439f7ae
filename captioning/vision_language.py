"""Captions by vision-language models that are loaded here, in one length or in two.

Sources: Xiao et al., Florence-2 (2023), by its tasks; Qwen3-VL (2025), by what it is asked.
"""

import json
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from captioning import weights
from captioning.base import Caption, Network, Origin
from captioning.clean import CLEANING_VERSION, clean
from captioning.generated import LoadedSpec

Length = Literal["short", "long"]

_OF_A_TEXT = {"precision", "beams", "max_new_tokens", "batch_size"}


class VisionLanguageSpec(LoadedSpec):
    """Caption with a model of transformers that takes an image and a prompt.

    An image whose caption is empty is rejected.
    """

    prompt: str = Field(min_length=1, description="for the short text: a question, or a task")
    long_prompt: str = Field(min_length=1, description="for the long text")
    length: Length = Field("short", description="of the caption")
    both: bool = Field(
        False, description="keep the other length in the json as well, at twice the work"
    )
    precision: Literal["fp32", "bf16"] = Field("bf16", description="of weights and activations")
    beams: int = Field(1, ge=1, le=16, description="1: greedy")
    max_new_tokens: int = Field(256, ge=1, le=2048, description="length of a text; tokens")
    batch_size: int = Field(
        8, ge=1, le=4096, description="images of one size at once; filled up, so that a text "
        "depends on its image alone",
    )  # fmt: skip

    @property
    def prompts(self) -> dict[str, str]:
        """What the model is asked, by length."""
        asked = {"long": self.long_prompt, "short": self.prompt}
        return asked if self.both else {self.length: asked[self.length]}

    @property
    def identity(self) -> dict[str, Any]:
        """All that changes a caption, but where the checkpoint lies; the cleaning's version."""
        fields = self.model_dump(mode="json", include={"captioner", "max_characters", "length"})
        return {**fields, **self.network_identity, "cleaning": CLEANING_VERSION}

    @property
    def network_identity(self) -> dict[str, Any]:
        """What changes generated texts: parameters, prompts, and what stands for the weights.

        Raises:
            WeightsError: the checkpoint is a folder that is not there or not whole.
        """
        fields = self.model_dump(mode="json", include=_OF_A_TEXT)
        told = weights.identity(self.model, self.revision)
        return {**fields, "prompts": self.prompts, "weights": told}

    @property
    def network(self) -> "VisionLanguageSpec":
        """This spec: its fields are those of the network too."""
        return self

    def load(self, device: str) -> Network:
        """Load the model onto `device`; raises WeightsError where it cannot be had."""
        from captioning.vision_language_network import VisionLanguage

        folder = weights.locate(self.model, self.revision)
        return VisionLanguage(
            folder,
            device,
            prompts=self.prompts,
            precision=self.precision,
            beams=self.beams,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
        )

    def choose(self, found: str | None, generated: str | None) -> Caption | None:
        """Return the caption by the spec's sources; a kept text beside has no other lengths."""
        caption = super().choose(found, generated)
        if caption is None or not self.both or caption.lengths:
            return caption
        return replace(caption, lengths={"short": "", "long": ""})

    def said(self, generated: str, sidecar: str) -> Caption | None:
        """Return the caption that the model's text is; None where it says nothing.

        Args:
            generated: a JSON object of texts by length.
            sidecar: what lies beside the image.
        """
        texts = {
            length: clean(text)[: self.max_characters].rstrip()
            for length, text in json.loads(generated).items()
        }
        if not texts[self.length]:
            return None
        return Caption(
            text=texts[self.length],
            source=self._origin,
            sidecar=sidecar,
            lengths=texts if self.both else {},
        )

    @property
    def _origin(self) -> Origin:
        raise NotImplementedError


class Florence2Spec(VisionLanguageSpec):
    """Caption with Florence-2, whose prompts are its tasks."""

    captioner: Literal["florence2", "sidecar_or_florence2", "florence2_with_sidecar_kept"]
    model: str = "florence-community/Florence-2-base"
    prompt: str = Field("<CAPTION>", description="task of the short text")
    long_prompt: str = Field(
        "<DETAILED_CAPTION>", description="task of the long text; or <MORE_DETAILED_CAPTION>"
    )

    @property
    def _origin(self) -> Origin:
        return "florence2"


class Qwen3VlSpec(VisionLanguageSpec):
    """Caption with a Qwen3-VL, or any chat model for images that transformers has."""

    captioner: Literal["qwen3_vl", "sidecar_or_qwen3_vl", "qwen3_vl_with_sidecar_kept"]
    model: str = "Qwen/Qwen3-VL-2B-Instruct"
    prompt: str = Field(
        "Describe the image in one short sentence. Begin with what is seen.",
        min_length=1,
        description="question for the short text",
    )
    long_prompt: str = Field(
        "Describe the image in three to five sentences, for someone who is to paint it: what is "
        "seen and where, the light, the colours, the style. Begin with what is seen.",
        min_length=1,
        description="question for the long text",
    )

    @property
    def _origin(self) -> Origin:
        return "qwen3_vl"
