"""What a base's UNet sees of captions, and of the sizes of their pictures."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformers import CLIPTokenizer

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Captions as a base's text encoders give them.

    Attributes:
        tokens: c_t, which the UNet attends to.
        pooled: a vector of the whole text, of bases that have one (SDXL); else None.
        sizes: what such a base is told of each picture's sizes, see
            `training.data.micro_conditions`.
    """

    tokens: Float[Tensor, "b tokens width"]
    pooled: Float[Tensor, "b pooled"] | None = None
    sizes: Float[Tensor, "b 6"] | None = None

    def __len__(self) -> int:
        """Return the number of captions."""
        return len(self.tokens)

    def __getitem__(self, rows: Any) -> "Text":
        """Return the captions of these rows: a list of numbers, or a slice."""
        return self._each(lambda tensor: tensor[rows])

    def to(self, place: torch.device | torch.dtype) -> "Text":
        """Return it on a device, or in a type of number; sizes keep theirs."""
        if isinstance(place, torch.device):
            return self._each(lambda tensor: tensor.to(place, non_blocking=True))
        return replace(self._each(lambda tensor: tensor.to(place)), sizes=self.sizes)

    def of_sizes(self, sizes: Sequence[Sequence[int]] | Int64[Tensor, "b 6"]) -> "Text":
        """Return it with the sizes of the pictures; a base that is told of none stays as it is."""
        if self.pooled is None:
            return self
        told = torch.as_tensor(sizes).to(self.pooled.device, torch.float32)
        return replace(self, sizes=told)

    @property
    def added(self) -> dict[str, Tensor] | None:
        """What diffusers' networks take as ``added_cond_kwargs``."""
        if self.pooled is None:
            return None
        assert self.sizes is not None, "a base that is told of sizes, without any"
        return {"text_embeds": self.pooled, "time_ids": self.sizes}

    def _each(self, change: Any) -> "Text":
        optional = (self.pooled, self.sizes)
        pooled, sizes = (None if one is None else change(one) for one in optional)
        return Text(tokens=change(self.tokens), pooled=pooled, sizes=sizes)


def joined(texts: Sequence[Text]) -> Text:
    """Return the captions of several, one after the other."""

    def stacked(name: str) -> Tensor | None:
        several = [getattr(text, name) for text in texts]
        return None if several[0] is None else torch.cat(several)

    tokens = torch.cat([text.tokens for text in texts])
    return Text(tokens=tokens, pooled=stacked("pooled"), sizes=stacked("sizes"))


def token_ids(
    tokenizer: CLIPTokenizer, captions: Sequence[str], told: list[bool]
) -> Int64[Tensor, "b tokens"]:
    """Return the numbers of the captions' tokens, padded to the text encoder's full length.

    Args:
        tokenizer: of the text encoder.
        captions: what they have beyond that length is not seen.
        told: whether somebody was told of that; it is logged once.
    """
    tokens = tokenizer(
        list(captions),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    cut = sum(bool(one.overflowing) for one in tokens.encodings)
    if cut and not told:
        told.append(True)
        _log.warning(
            "%d of %d texts are longer than the text encoder's %d tokens: what lies beyond is "
            "not seen (told once)", cut, len(captions), tokenizer.model_max_length,
        )  # fmt: skip
    return cast(Tensor, tokens.input_ids)
