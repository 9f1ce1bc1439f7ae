"""Stable Diffusion 1.x and 2.x (paper 3.2): one CLIP text encoder."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from training.model.family import Base, denoising_parts
from training.model.files import BaseFiles
from training.model.text import Text, token_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class StableDiffusion(Base):
    """A Stable Diffusion 1.x or 2.x.

    Attributes:
        tokenizer: text -> token ids.
        text_encoder: token ids -> c_t, its last hidden state.
        told: whether somebody was told that texts are cut.
    """

    PIPELINE: ClassVar[str] = "StableDiffusionControlNetPipeline"

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    told: list[bool] = field(default_factory=list, repr=False)

    @classmethod
    def load(cls, files: BaseFiles, *, dtype: torch.dtype, encoders_only: bool) -> Self:
        """Load it, on the CPU; see `Base.load`."""
        folder = files.folder
        return cls(
            tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
            text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype),
            **denoising_parts(files, dtype=dtype, encoders_only=encoders_only),
        )

    @property
    def text_encoders(self) -> tuple[nn.Module, ...]:
        """The one text encoder."""
        return (self.text_encoder,)

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str]) -> Text:
        """Return c_t of captions; see `Base.encode_text`."""
        ids = token_ids(self.tokenizer, captions, self.told).to(self.text_encoder.device)
        return Text(tokens=self.text_encoder(ids)[0])
