"""Pictures for probes and evaluations, by whatever learns: ControlNet, unlocked UNet, baseline.

The loop is `training.sample.sampler`'s; here it has one signature for all that is to be measured.
"""

from collections.abc import Sequence
from typing import Protocol

import torch

from catalog.images import Image
from training.data.pixels import as_signed, stack
from training.model.base import Base
from training.model.denoiser import Denoiser
from training.sample.controls import Conditioned
from training.sample.sampler import GUIDANCE_SCALE, STEPS, Sampling, decode, sample


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
        guidance_scale: see `training.sample.sampler.Sampling`.
    """
    sampling = Sampling(steps=steps, guidance_scale=guidance_scale)

    def make(
        hints: Sequence[Image], prompts: Sequence[str], seeds: Sequence[int]
    ) -> Sequence[Image]:
        shown = Conditioned(denoiser=denoiser, hints=hints)
        return sample(base, shown, seeds=seeds, prompts=prompts, sampling=sampling).images

    return make


def uncontrolled(
    base: Base, *, steps: int = STEPS, guidance_scale: float = GUIDANCE_SCALE
) -> Sampler:
    """Return what samples with the base alone: of a hint it takes no more than the size.

    Args:
        base: on the device to use.
        steps: of DDIM.
        guidance_scale: see `training.sample.sampler.Sampling`.
    """
    sampling = Sampling(steps=steps, guidance_scale=guidance_scale)

    def make(
        hints: Sequence[Image], prompts: Sequence[str], seeds: Sequence[int]
    ) -> Sequence[Image]:
        size = (hints[0].shape[0], hints[0].shape[1])
        return sample(base, size=size, seeds=seeds, prompts=prompts, sampling=sampling).images

    return make


@torch.no_grad()
def reconstruct(base: Base, images: Sequence[Image]) -> list[Image]:
    """Return images as the base's autoencoder gives them back, without noise."""
    made = []
    for image in images:  # one by one: photographs may differ in size
        moments = base.moments(as_signed(stack([image])))
        made += decode(base, base.latents(moments, torch.zeros_like(moments.chunk(2, dim=1)[0])))
    return made
