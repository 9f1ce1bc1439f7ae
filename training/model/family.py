"""The base model, locked (paper 3.2), and what its family decides.

A family is a subclass of `Base`: how its text, its images and its hints are encoded, what its
networks learn to predict, and how pictures are sampled from them. `training.model.stable_diffusion`
and `training.model.sdxl` are two; `training.model.base` chooses. A family whose hint goes through
the autoencoder, or whose objective is a flow, overrides `hint`, or `add_noise`, `target` and
`sampling_scheduler`, and nothing else changes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    DDPMScheduler,
    UNet2DConditionModel,
)
from jaxtyping import Float, Int64
from torch import Tensor, nn

from training.errors import BaseModelError
from training.model.files import BaseFiles
from training.model.hint_encoder import CONTROLNETS, hint_channels
from training.model.text import Text
from training.settings.config import HintEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Base(ABC):
    """A base model, locked: eval mode, no gradients.

    Attributes:
        vae: image -1..1 <-> latent.
        unet: predicts the noise.
        scheduler: the noise levels that the base was trained with.
        files: where it lies on this machine.
    """

    PIPELINE: ClassVar[str]
    """Name of the pipeline of diffusers that a ControlNet for it goes into."""

    CONTROLNETS: ClassVar[Mapping[HintEncoder, type[ControlNetModel]]] = CONTROLNETS
    """The classes of ControlNets that are cut from it."""

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    scheduler: DDPMScheduler
    files: BaseFiles

    @classmethod
    @abstractmethod
    def load(cls, files: BaseFiles, *, dtype: torch.dtype, encoders_only: bool) -> Self:
        """Load it, on the CPU; see `training.model.base.load_base`.

        Raises:
            OSError, ValueError: a file is missing, or is not what its name says.
        """

    @property
    @abstractmethod
    def text_encoders(self) -> tuple[nn.Module, ...]:
        """The networks that `encode_text` uses."""

    @abstractmethod
    def encode_text(self, captions: Sequence[str]) -> Text:
        """Return what the UNet sees of captions.

        What a caption has beyond the text encoder's length is not seen; the first time that is
        logged.
        """

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """The parts with weights."""
        return *self.text_encoders, self.vae, self.unet

    @property
    def text_dtype(self) -> torch.dtype:
        """Type of the numbers that `encode_text` gives."""
        return next(self.text_encoders[0].parameters()).dtype

    @property
    def scale(self) -> int:
        """Pixels a latent cell, along one side; 8 in every Stable Diffusion."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def to(self, device: torch.device) -> None:
        """Move the networks to `device`."""
        for network in self.networks:
            network.to(device)

    @torch.no_grad()
    def moments(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c2 y x"]:
        """Return mean and log-variance of the latents of images -1..1, in fp32, stacked."""
        with self._vae_precision():
            encoded = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype))
        distribution = encoded.latent_dist
        moments = torch.cat([distribution.mean, distribution.logvar], dim=1).float()
        return moments.contiguous()  # as stored ones are: convolutions sum in the order of memory

    def latents(
        self, moments: Float[Tensor, "b c2 y x"], posterior: Float[Tensor, "b c y x"]
    ) -> Float[Tensor, "b c y x"]:
        """Return z_0, scaled, where `posterior`, standard normal, picks it."""
        mean, logvar = moments.chunk(2, dim=1)
        latents = mean + torch.exp(0.5 * logvar) * posterior.to(mean)
        return cast(Tensor, latents * self.vae.config.scaling_factor)

    def encode_images(
        self, pixels: Float[Tensor, "b 3 h w"], posterior: Float[Tensor, "b c y x"]
    ) -> Float[Tensor, "b c y x"]:
        """Return z_0 of images -1..1, in fp32, scaled; `posterior`, standard normal, picks it."""
        return self.latents(self.moments(pixels), posterior)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c y x"]) -> Float[Tensor, "b 3 h w"]:
        """Return the images -1..1, in fp32, of scaled latents."""
        unscaled = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        with self._vae_precision():
            return cast(Tensor, self.vae.decode(unscaled, return_dict=False)[0].float())

    def hint(self, condition: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c height width"]:
        """Return what a ControlNet is shown of conditions 0..1: here, the conditions."""
        return condition

    def add_noise(
        self,
        latents: Float[Tensor, "b c y x"],
        noise: Float[Tensor, "b c y x"],
        timesteps: Int64[Tensor, " b"],
    ) -> Float[Tensor, "b c y x"]:
        """Return z_t."""
        return cast(Tensor, self.scheduler.add_noise(latents, noise, timesteps))

    def target(
        self,
        latents: Float[Tensor, "b c y x"],
        noise: Float[Tensor, "b c y x"],
        timesteps: Int64[Tensor, " b"],
    ) -> Float[Tensor, "b c y x"]:
        """Return what the base predicts: the noise, or the velocity of SD 2.1 (768 px).

        Raises:
            BaseModelError: the scheduler's prediction_type is neither.
        """
        kind = self.scheduler.config.prediction_type
        if kind == "epsilon":
            return noise
        if kind == "v_prediction":
            return cast(Tensor, self.scheduler.get_velocity(latents, noise, timesteps))
        raise BaseModelError(
            f"the base's scheduler has prediction_type {kind!r}; expected epsilon or v_prediction"
        )

    def sampling_scheduler(self) -> Any:
        """Return what pictures are sampled with, a scheduler of diffusers: DDIM.

        Twenty of 1,000 timesteps are 951, 901, ..., 1, as in the original code; diffusers' own
        defaults end at 0 and clip.
        """
        return DDIMScheduler.from_config(
            self.scheduler.config,
            steps_offset=1,
            set_alpha_to_one=False,
            clip_sample=False,
            timestep_spacing="leading",
        )

    def cut_controlnet(self, hint_encoder: HintEncoder) -> ControlNetModel:
        """Return a copy of the UNet's encoder; its new layers are of torch's global generator.

        Raises:
            BaseModelError: the latents are smaller than the hint encoder can reach.
        """
        return self.CONTROLNETS[hint_encoder].from_unet(
            self.unet, conditioning_embedding_out_channels=hint_channels(hint_encoder, self.scale)
        )

    def _vae_precision(self) -> AbstractContextManager[Any]:
        """Keep an autoencoder in fp32 where it is, whatever the rest computes in."""
        if self.vae.dtype != torch.float32:
            return nullcontext()
        return torch.autocast(self.vae.device.type, enabled=False)


def denoising_parts(files: BaseFiles, *, dtype: torch.dtype, encoders_only: bool) -> dict[str, Any]:
    """Load what all families have, by the names of `Base`'s attributes."""
    return {
        "vae": AutoencoderKL.from_pretrained(files.vae, torch_dtype=dtype),
        "unet": _empty_unet(files) if encoders_only else _unet(files, dtype),
        "scheduler": DDPMScheduler.from_pretrained(files.folder / "scheduler"),
        "files": files,
    }


def _unet(files: BaseFiles, dtype: torch.dtype) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(files.folder / "unet", torch_dtype=dtype)


def _empty_unet(files: BaseFiles) -> UNet2DConditionModel:
    config = UNet2DConditionModel.load_config(files.folder / "unet")
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(config)
