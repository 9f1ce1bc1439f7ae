"""Stable Diffusion XL (Podell et al., 2023): two text encoders, a pooled text, sizes and crops."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from training.model.family import Base, denoising_parts
from training.model.files import BaseFiles
from training.model.text import Text, token_ids

_BUT_LAST = -2  # of a text encoder's hidden states: what SDXL attends to


@dataclass(frozen=True, slots=True, kw_only=True)
class StableDiffusionXL(Base):
    """An SDXL base; its refiner, which has the second text encoder alone, is none.

    Attributes:
        tokenizer: text -> token ids of the first text encoder.
        text_encoder: CLIP ViT-L.
        tokenizer_2: text -> token ids of the second one.
        text_encoder_2: OpenCLIP ViT-bigG; it gives the pooled text as well.
        told: whether somebody was told that texts are cut.
    """

    PIPELINE: ClassVar[str] = "StableDiffusionXLControlNetPipeline"

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    tokenizer_2: CLIPTokenizer
    text_encoder_2: CLIPTextModelWithProjection
    told: list[bool] = field(default_factory=list, repr=False)

    @classmethod
    def load(cls, files: BaseFiles, *, dtype: torch.dtype, encoders_only: bool) -> Self:
        """Load it, on the CPU; see `Base.load`.

        SDXL's own autoencoder leaves fp16's range, so there it stays in fp32; one that was made for
        fp16 (``--vae``) says so in its configuration.
        """
        folder = files.folder
        loaded = cls(
            tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
            text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype),
            tokenizer_2=CLIPTokenizer.from_pretrained(folder / "tokenizer_2"),
            text_encoder_2=CLIPTextModelWithProjection.from_pretrained(
                folder / "text_encoder_2", dtype=dtype
            ),
            **denoising_parts(files, dtype=dtype, encoders_only=encoders_only),
        )
        if dtype == torch.float16 and loaded.vae.config.force_upcast:
            loaded.vae.float()
        return loaded

    @property
    def text_encoders(self) -> tuple[nn.Module, ...]:
        """Both."""
        return self.text_encoder, self.text_encoder_2

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str]) -> Text:
        """Return the last but one hidden states of both encoders, and the second's pooled text.

        An empty caption is encoded like any other, as diffusers' SDXL training script does; its
        pipeline puts zeros in its place where no negative prompt is given.
        """
        pairs = ((self.tokenizer, self.text_encoder), (self.tokenizer_2, self.text_encoder_2))
        states = []
        for tokenizer, encoder in pairs:
            ids = token_ids(tokenizer, captions, self.told).to(encoder.device)
            encoded = encoder(ids, output_hidden_states=True)
            states.append(encoded.hidden_states[_BUT_LAST])
        return Text(tokens=torch.cat(states, dim=-1), pooled=encoded[0])
