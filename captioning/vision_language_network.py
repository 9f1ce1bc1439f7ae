"""Vision-language models with transformers' processors and layers; batches are ours."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from captioning.base import Image
from captioning.on_torch import cannot_load, quietly, require_whole, stated

Inputs: TypeAlias = dict[str, Tensor]
"""What a model takes of one image and one prompt, by the processor's names; on the CPU."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p")


class VisionLanguage:
    """A model of transformers' image-text-to-text, from a folder in the hub's layout."""

    def __init__(
        self,
        folder: Path,
        device: str,
        *,
        prompts: Mapping[str, str],
        precision: Literal["fp32", "bf16"] = "bf16",
        beams: int = 1,
        max_new_tokens: int = 256,
        batch_size: int = 8,
    ) -> None:
        """Load the model.

        Args:
            folder: with config, weights, tokenizer and processor.
            device: for example ``cpu`` or ``cuda``.
            prompts: what it is asked of each image, by name.
            precision: of weights and activations.
            beams: 1 is greedy.
            max_new_tokens: length of a text.
            batch_size: images at once.

        Raises:
            WeightsError: the folder holds no whole model of that kind.
        """
        model, self._processor = _from_folder(folder, _DTYPES[precision])
        self._model = model.to(device).eval().requires_grad_(False)
        self._device, self._precision, self._dtype = device, precision, _DTYPES[precision]
        self._batch_size = batch_size
        self._prompts = {name: self._asked(prompt) for name, prompt in prompts.items()}
        for name in _SAMPLING:  # which a model's own configuration may hold
            setattr(model.generation_config, name, None)
        self._options = {"num_beams": beams, "max_new_tokens": max_new_tokens, "do_sample": False}

    def prepare(self, image: Image) -> dict[str, Inputs]:
        """Return what the model takes of one image, by the prompts' names; safe in any thread."""
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        return {
            name: dict(self._processor(images=[pixels], text=[text], return_tensors="pt"))
            for name, text in self._prompts.items()
        }

    @torch.inference_mode()
    def __call__(self, prepared: Sequence[dict[str, Inputs]]) -> list[str]:
        """Return, for each prepared image, a JSON object with the text of each prompt.

        Images of one size go together, and a short batch is filled up with its last image, so that
        sums run in the same order whatever the company.
        """
        assert 0 < len(prepared) <= self._batch_size, len(prepared)
        texts: list[dict[str, str]] = [{} for _ in prepared]
        for name in self._prompts:
            asked = [one[name] for one in prepared]
            for places in _alike(asked):
                made = self._generate([asked[at] for at in places])
                for at, text in zip(places, made, strict=True):
                    texts[at][name] = text
        return [json.dumps(one, ensure_ascii=False, sort_keys=True) for one in texts]

    def _generate(self, inputs: Sequence[Inputs]) -> list[str]:
        filled = [*inputs, *[inputs[-1]] * (self._batch_size - len(inputs))]
        batch = {
            name: self._on_device(torch.cat([one[name] for one in filled])) for name in filled[0]
        }
        with stated(self._precision, self._device):
            tokens = self._model.generate(**batch, **self._options)[: len(inputs)]
        if not self._model.config.is_encoder_decoder:
            tokens = tokens[:, batch["input_ids"].shape[1] :]  # what it was asked stands before it
        texts: list[str] = self._processor.batch_decode(tokens.cpu(), skip_special_tokens=True)
        return texts

    def _on_device(self, tensor: Tensor) -> Tensor:
        placed = tensor.to(self._device)
        return placed.to(self._dtype) if placed.is_floating_point() else placed

    def _asked(self, prompt: str) -> str:
        """Return a prompt as the model takes it: in its chat's form, where it has one."""
        if not getattr(self._processor, "chat_template", None):
            return prompt
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        turns = [{"role": "user", "content": content}]
        asked: str = self._processor.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True
        )
        return asked


def _alike(inputs: Sequence[Inputs]) -> list[list[int]]:
    """Return the places of the inputs whose tensors have the same shapes."""
    groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for at, one in enumerate(inputs):
        shapes = tuple(tuple(one[name].shape) for name in sorted(one))
        groups.setdefault(shapes, []).append(at)
    return list(groups.values())


def _from_folder(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """Return model and processor.

    Raises:
        WeightsError: the folder is another model's, or lacks weights, which would be random.
    """
    with quietly():
        from transformers import AutoModelForImageTextToText, AutoProcessor

        try:
            model, report = AutoModelForImageTextToText.from_pretrained(
                folder, local_files_only=True, output_loading_info=True, dtype=dtype
            )
            processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # a damaged file may raise anything
            raise cannot_load(folder, "a vision-language model", error) from error
    require_whole(folder, report, "model")
    return model, processor
