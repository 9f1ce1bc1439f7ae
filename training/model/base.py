"""The base model, locked (paper 3.2): from a name to a base of the family that its files are of."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from training.errors import BaseModelError
from training.model.family import Base
from training.model.files import SECOND_PARTS, BaseFiles, cannot_load, locate_base
from training.model.sdxl import StableDiffusionXL
from training.model.stable_diffusion import StableDiffusion
from training.settings.config import MixedPrecision

__all__ = [
    "LOCKED_TYPES",
    "Base",
    "fingerprint",
    "load_base",
    "load_files",
    "locate_base",
    "pipeline_of",
]

LOCKED_TYPES: dict[MixedPrecision, torch.dtype] = {
    "no": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
"""Of a base's weights, by the precision of a run."""


def load_base(
    base: str,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    dtype: torch.dtype = torch.float32,
    encoders_only: bool = False,
    vae: str | None = None,
) -> Base:
    """Load a base, locked, on the CPU.

    Args:
        base: a local folder in diffusers layout, or a hub id.
        revision: commit, tag or branch of a hub id.
        local_files_only: use only a hub id's files that are already on this machine.
        dtype: of the weights.
        encoders_only: leave out the UNet's weights, most of all: it has shapes and no memory.
        vae: an autoencoder in place of the base's: a folder, or a hub id.

    Raises:
        BaseModelError: there is no such base or autoencoder here, or a part of it is missing.
    """
    files = locate_base(base, revision=revision, local_files_only=local_files_only, vae=vae)
    return load_files(files, dtype=dtype, encoders_only=encoders_only)


def load_files(
    files: BaseFiles, *, dtype: torch.dtype = torch.float32, encoders_only: bool = False
) -> Base:
    """Load a base that is on this machine; see `load_base`."""
    try:
        loaded = family_of(files).load(files, dtype=dtype, encoders_only=encoders_only)
    except (OSError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise BaseModelError(cannot_load(str(files.folder), reason)) from error
    for network in loaded.networks:
        network.eval().requires_grad_(False)
    return loaded


def family_of(files: BaseFiles) -> type[Base]:
    """Return the family of a base: SDXL where it has a second text encoder.

    Raises:
        BaseModelError: only a part of that is there.
    """
    second = [part for part in SECOND_PARTS if (files.folder / part).is_dir()]
    if len(second) == 1:
        missing = next(part for part in SECOND_PARTS if part not in second)
        raise BaseModelError(cannot_load(str(files.folder), f"{missing} missing"))
    return StableDiffusionXL if second else StableDiffusion


def pipeline_of(controlnet: Mapping[str, Any]) -> str:
    """Return the name of diffusers' pipeline that a ControlNet goes into.

    Args:
        controlnet: its configuration.
    """
    told_of_sizes = controlnet.get("addition_embed_type") == "text_time"
    return (StableDiffusionXL if told_of_sizes else StableDiffusion).PIPELINE


def fingerprint(networks: Sequence[nn.Module]) -> str:
    """Return the hex sha256 of the weights of `networks`, in order.

    Names stay out of it: transformers 5 renamed the text encoder's.
    """
    digest = hashlib.sha256()
    for network in networks:
        for tensor in network.state_dict().values():
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
