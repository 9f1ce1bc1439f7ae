"""The base model: a Stable Diffusion, locked (paper 3.2)."""

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from huggingface_hub import snapshot_download
from jaxtyping import Float
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from catalog.sample import sha256_hex
from catalog.storage import sha256_file
from training.errors import BaseModelError
from training.settings.config import MixedPrecision

PARTS = ("tokenizer", "text_encoder", "vae", "unet", "scheduler")

LOCKED_TYPES: dict[MixedPrecision, torch.dtype] = {
    "no": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
"""Of a base's weights, by the precision of a run."""

_log = logging.getLogger(__name__)

_FILES = (".json", ".txt", "model.safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A Stable Diffusion model, locked: eval mode, no gradients.

    Attributes:
        tokenizer: text -> token ids.
        text_encoder: token ids -> c_t.
        vae: image -1..1 <-> latent.
        unet: predicts the noise.
        scheduler: the noise levels that the base was trained with.
        folder: where its files lie on this machine.
        told: whether somebody was told that texts are cut.
    """

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    scheduler: DDPMScheduler
    folder: Path
    told: list[bool] = field(default_factory=list, repr=False)

    @property
    def networks(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """The parts with weights."""
        return self.text_encoder, self.vae, self.unet

    @property
    def scale(self) -> int:
        """Pixels a latent cell, along one side; 8 in every Stable Diffusion."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def to(self, device: torch.device) -> None:
        """Move the networks to `device`."""
        for network in self.networks:
            network.to(device)

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str]) -> Float[torch.Tensor, "b tokens width"]:
        """Return c_t: the text encoder's last hidden state, padded to its full length.

        What a caption has beyond that length is not seen; the first time that is logged.
        """
        tokens = self.tokenizer(
            list(captions),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        cut = sum(bool(one.overflowing) for one in tokens.encodings)
        if cut and not self.told:
            self.told.append(True)
            most = self.tokenizer.model_max_length
            _log.warning(
                "%d of %d texts are longer than the text encoder's %d tokens: what lies beyond is "
                "not seen (told once)", cut, len(captions), most,
            )  # fmt: skip
        ids = tokens.input_ids.to(self.text_encoder.device)
        return cast(torch.Tensor, self.text_encoder(ids)[0])

    @torch.no_grad()
    def moments(self, pixels: Float[torch.Tensor, "b 3 h w"]) -> Float[torch.Tensor, "b c2 y x"]:
        """Return mean and log-variance of the latents of images -1..1, in fp32, stacked."""
        distribution = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype)).latent_dist
        moments = torch.cat([distribution.mean, distribution.logvar], dim=1).float()
        return moments.contiguous()  # as stored ones are: convolutions sum in the order of memory

    def latents(
        self, moments: Float[torch.Tensor, "b c2 y x"], posterior: Float[torch.Tensor, "b c y x"]
    ) -> Float[torch.Tensor, "b c y x"]:
        """Return z_0, scaled, where `posterior`, standard normal, picks it."""
        mean, logvar = moments.chunk(2, dim=1)
        latents = mean + torch.exp(0.5 * logvar) * posterior.to(mean)
        return cast(torch.Tensor, latents * self.vae.config.scaling_factor)

    def encode_images(
        self, pixels: Float[torch.Tensor, "b 3 h w"], posterior: Float[torch.Tensor, "b c y x"]
    ) -> Float[torch.Tensor, "b c y x"]:
        """Return z_0 of images -1..1, in fp32, scaled; `posterior`, standard normal, picks it."""
        return self.latents(self.moments(pixels), posterior)


def load_base(
    base: str,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    dtype: torch.dtype = torch.float32,
    encoders_only: bool = False,
) -> Base:
    """Load a Stable Diffusion base, locked, on the CPU.

    Args:
        base: a local folder in diffusers layout, or a hub id.
        revision: commit, tag or branch of a hub id.
        local_files_only: use only a hub id's files that are already on this machine.
        dtype: of the weights.
        encoders_only: leave out the UNet's weights, most of all: it has shapes and no memory.

    Raises:
        BaseModelError: there is no such base here, or a part of it is missing.
    """
    folder = locate_base(base, revision=revision, local_files_only=local_files_only)
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise BaseModelError(_cannot_load(base, f"{', '.join(missing)} missing"))
    try:
        loaded = Base(
            tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
            text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype),
            vae=AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=dtype),
            unet=_empty_unet(folder) if encoders_only else _unet(folder, dtype),
            scheduler=DDPMScheduler.from_pretrained(folder / "scheduler"),
            folder=folder,
        )
    except (OSError, ValueError) as error:
        raise BaseModelError(_cannot_load(base, f"{type(error).__name__}: {error}")) from error
    for network in loaded.networks:
        network.eval().requires_grad_(False)
    return loaded


def _unet(folder: Path, dtype: torch.dtype) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=dtype)


def _empty_unet(folder: Path) -> UNet2DConditionModel:
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))


def locate_base(base: str, *, revision: str | None = None, local_files_only: bool = False) -> Path:
    """Return the local folder of a base; a hub id's files are fetched, or found in the cache.

    Args and errors are those of `load_base`.
    """
    if Path(base).is_dir():
        return Path(base)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", base):
        raise BaseModelError(_cannot_load(base, "there is no such folder"))
    try:
        snapshot = snapshot_download(
            base,
            revision=revision,
            allow_patterns=[f"{part}/*{end}" for part in PARTS for end in _FILES],
            ignore_patterns=["*.fp16.*", "*.non_ema.*"],
            local_files_only=local_files_only,
        )
    except (OSError, ValueError) as error:
        raise BaseModelError(_cannot_load(base, f"{type(error).__name__}: {error}")) from error
    return Path(snapshot)


def weights_sha256(folder: Path, part: str) -> str:
    """Return the hex sha256 of the file that holds a part's weights, in whatever type.

    Args:
        folder: of a base, see `locate_base`.
        part: such as ``vae``.

    Raises:
        BaseModelError: the part has no such file.
    """
    for names in ("*model.safetensors", "*model.bin"):
        if files := sorted((folder / part).glob(names)):
            return sha256_hex("".join(sha256_file(str(file)) for file in files).encode())
    raise BaseModelError(f"{folder / part} holds no weights: no *model.safetensors")


def _cannot_load(base: str, reason: str) -> str:
    return (
        f"cannot load the base model {base!r}: {reason}\n"
        f"Expected a folder in diffusers layout ({', '.join(f'{part}/' for part in PARTS)}), "
        "or a hub id such as stable-diffusion-v1-5/stable-diffusion-v1-5.\n"
        "To fetch a hub id: hf download <id>; without a network, copy that cache here and set "
        "HF_HOME to it, or give the folder."
    )


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
