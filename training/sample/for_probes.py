"""Pictures for probes and evaluations, by whatever learns: ControlNet, unlocked UNet, baseline.

`training.sample.sampler` has the paper's many ways to sample; here is one, for all that is a
`Denoiser`: DDIM, with as much noise for a seed as there.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, cast

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8

from training.data.loader import to_unit
from training.model.controlnet import Base
from training.model.denoiser import Denoiser
from training.sample.sampler import GUIDANCE_SCALE, STEPS, ddim

Image: TypeAlias = UInt8[np.ndarray, "h w 3"]
Latents: TypeAlias = Float[torch.Tensor, "b c y x"]

Predict: TypeAlias = Callable[
    [
        Latents,
        Int64[torch.Tensor, " b"],
        Float[torch.Tensor, "b tokens width"],
        Float[torch.Tensor, "b 3 h w"],
    ],
    Latents,
]
"""Noisy latents, timesteps, text and hint to the prediction; a `Denoiser` is one."""


class Sampler(Protocol):
    """Makes pictures."""

    def __call__(
        self, hints: Sequence[Image], prompts: Sequence[str], seeds: Sequence[int]
    ) -> Sequence[Image]:
        """Return one picture for each hint, of its height and width; equal calls, equal pictures.

        All hints of one call have the same size.
        """
        ...


def controlled(
    base: Base, denoiser: Denoiser, *, steps: int = STEPS, guidance_scale: float = GUIDANCE_SCALE
) -> Sampler:
    """Return what samples as `denoiser` predicts now; in mixed precision, call it under autocast.

    Args:
        base: on the device to use.
        denoiser: there too.
        steps: of DDIM.
        guidance_scale: strength of classifier-free guidance; 1 turns it off.
    """
    return _sampler(base, denoiser, steps, guidance_scale)


def uncontrolled(
    base: Base, *, steps: int = STEPS, guidance_scale: float = GUIDANCE_SCALE
) -> Sampler:
    """Return what samples with the base alone: of a hint it takes no more than the size.

    Args:
        base: on the device to use.
        steps: of DDIM.
        guidance_scale: strength of classifier-free guidance; 1 turns it off.
    """

    def predict(
        noisy: Latents, timesteps: torch.Tensor, text: torch.Tensor, hint: torch.Tensor
    ) -> Latents:
        noisy = noisy.to(base.unet.dtype)
        return cast(Latents, base.unet(noisy, timesteps, text, return_dict=False)[0])

    return _sampler(base, predict, steps, guidance_scale)


@torch.no_grad()
def reconstruct(base: Base, images: Sequence[Image]) -> list[Image]:
    """Return images as the base's autoencoder gives them back, without noise."""
    made = []
    for image in images:  # one by one: photographs may differ in size
        pixels = (to_unit([image]) * 2 - 1).to(base.vae.device, base.vae.dtype)
        made += _decoded(base, base.vae.encode(pixels).latent_dist.mode())
    return made


def _sampler(base: Base, predict: Predict, steps: int, guidance_scale: float) -> Sampler:
    @torch.no_grad()
    def sample(
        hints: Sequence[Image], prompts: Sequence[str], seeds: Sequence[int]
    ) -> Sequence[Image]:
        device, scheduler = base.unet.device, ddim(base.scheduler)
        scheduler.set_timesteps(steps, device=device)
        text = base.encode_text([*prompts, *[""] * len(prompts)])
        hint = to_unit(hints).to(device).repeat(2, 1, 1, 1)
        latents = _noise(base, hint.shape[-2:], seeds).to(device)
        for timestep in scheduler.timesteps:
            both = predict(latents.repeat(2, 1, 1, 1), timestep.repeat(len(hint)), text, hint)
            prompted, empty = both.float().chunk(2)
            predicted = empty + guidance_scale * (prompted - empty)
            latents = scheduler.step(predicted, timestep, latents).prev_sample
        return _decoded(base, latents / base.vae.config.scaling_factor)

    return sample


def _noise(base: Base, size: Sequence[int], seeds: Sequence[int]) -> Latents:
    shape = (base.vae.config.latent_channels, *(side // base.scale for side in size))
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


def _decoded(base: Base, latents: Latents) -> list[Image]:
    pixels = base.vae.decode(latents.to(base.vae.dtype), return_dict=False)[0].float()
    levels = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1)
    return list(levels.cpu().numpy().astype(np.uint8))
