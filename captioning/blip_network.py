"""BLIP with transformers' layers and tokenizer; batches, pixels and attention are ours."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from captioning.base import Image
from captioning.errors import WeightsError
from captioning.on_torch import cannot_load, quietly, require_whole, stated

_BICUBIC = 3  # PIL's number
_DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


class Blip:
    """BLIP's captioning model (Li et al., 2022), loaded from a folder in the hub's layout."""

    def __init__(
        self,
        folder: Path,
        device: str,
        *,
        precision: Literal["fp32", "tf32", "bf16"] = "fp32",
        beams: int = 1,
        prefix: str = "",
        max_new_tokens: int = 20,
        batch_size: int = 16,
    ) -> None:
        """Load the model.

        Args:
            folder: with config, weights, tokenizer and the image processor's values.
            device: for example ``cpu`` or ``cuda``.
            precision: of weights and activations.
            beams: 1 is greedy.
            prefix: text that every caption begins with.
            max_new_tokens: length after the prefix.
            batch_size: images at once.

        Raises:
            WeightsError: the folder holds no whole BLIP captioner.
        """
        model, self._tokenizer, how = _from_folder(folder)
        self._size = [int(how.size["height"]), int(how.size["width"])]
        # Mean and deviation over 0..255: one subtraction and one division a pixel.
        self._mean = _row(how.image_mean, device) / how.rescale_factor
        self._std = _row(how.image_std, device) / how.rescale_factor
        self._dtype = _DTYPES[precision]
        self._precision, self._device = precision, device
        self._model = fuse_attention(model.to(device, self._dtype).eval().requires_grad_(False))
        self._batch_size = batch_size
        self._options = {"num_beams": beams, "max_new_tokens": max_new_tokens, "do_sample": False}
        tokens = self._tokenizer(prefix, return_tensors="pt").input_ids if prefix else None
        self._prefix = None if tokens is None else tokens.to(device)  # (1, T)

    def prepare(self, image: Image) -> UInt8[Tensor, "3 s t"]:
        """Resize one image as BlipImageProcessor does, on the CPU, so that no device moves a bit.

        torchvision's bicubic on bytes is Pillow's but for its last rounding.
        """
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        resized: Tensor = transforms.resize(
            pixels, self._size, interpolation=InterpolationMode.BICUBIC, antialias=True
        )
        return resized

    def pixel_values(self, pixels: UInt8[Tensor, "b 3 s t"]) -> Float[Tensor, "b 3 s t"]:
        """Normalise as BlipImageProcessor does, on the device."""
        floats = pixels.to(self._mean.device).float()
        normal: Tensor = (floats - self._mean) / self._std
        return normal

    @torch.inference_mode()
    def __call__(self, prepared: Sequence[Tensor]) -> list[str]:
        """Return a text for each prepared image, at most a batch of them.

        A short batch is filled up with its last image: sums then run in the same order whatever the
        company, so that a text depends on its image alone.
        """
        assert 0 < len(prepared) <= self._batch_size, len(prepared)
        filled = [*prepared, *[prepared[-1]] * (self._batch_size - len(prepared))]
        with stated(self._precision, self._device):
            tokens = self._generate(self.pixel_values(torch.stack(filled)))[: len(prepared)]
        texts: list[str] = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return texts

    def _generate(self, pixels: Float[Tensor, "b 3 s t"]) -> Tensor:
        prompt: dict[str, Tensor] = {}
        if self._prefix is not None:
            # repeated, not expanded: generate writes its own first token into it
            ids = self._prefix.repeat(len(pixels), 1)
            prompt = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        made: Tensor = self._model.generate(
            pixel_values=pixels.to(self._dtype), **prompt, **self._options
        )
        return made.cpu()


def fuse_attention(model: Any) -> Any:
    """Give the vision layers torch's fused attention; theirs writes out every score.

    The same sums up to their order: hidden states move by some 1e-6 in fp32.
    """
    for layer in model.vision_model.encoder.layers:
        layer.self_attn = _FusedAttention(layer.self_attn)
    return model


class _FusedAttention(torch.nn.Module):
    """Stands in for transformers' BlipAttention, with its layers."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.qkv, self.projection = attention.qkv, attention.projection
        self._heads = attention.num_heads

    def forward(self, hidden_states: Tensor, **_: Any) -> tuple[Tensor, None]:
        batch, length, width = hidden_states.shape
        mixed = self.qkv(hidden_states).view(batch, length, 3, self._heads, width // self._heads)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)  # (B, heads, T, width of a head)
        seen = F.scaled_dot_product_attention(query, key, value)
        merged = seen.transpose(1, 2).reshape(batch, length, width)
        return self.projection(merged), None


def _from_folder(folder: Path) -> tuple[Any, Any, Any]:
    """Return model, tokenizer and image processor, of which only the values are used.

    Raises:
        WeightsError: the folder is another model's, or lacks weights, which would be random.
    """
    with quietly():
        from transformers import AutoTokenizer, BlipForConditionalGeneration, BlipImageProcessor

        try:
            model, report = BlipForConditionalGeneration.from_pretrained(
                folder, local_files_only=True, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            how = BlipImageProcessor.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # a damaged file may raise anything
            raise cannot_load(folder, "BLIP", error) from error
    require_whole(folder, report, "BLIP captioner")
    if how.resample != _BICUBIC:
        raise WeightsError(f"{folder} asks for resampling {how.resample}, expected bicubic")
    return model, tokenizer, how


def _row(values: Sequence[float], device: str) -> Float[Tensor, "1 3 1 1"]:
    return torch.tensor(values, device=device).reshape(1, 3, 1, 1)
