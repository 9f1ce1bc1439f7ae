"""Images from a base and its ControlNets, as in the paper's section 4.1: DDIM, 20 steps, CFG 9.0.

The loop is our own, because a ControlNet does not run outside its window here; diffusers'
StableDiffusionControlNetPipeline runs it at every step and adds zeros. In all else the two agree.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor

from catalog.images import Image
from training.data.micro_conditions import uncut
from training.data.pixels import to_unit
from training.errors import SamplingError
from training.model.base import Base
from training.model.text import joined
from training.sample.controls import (
    Conditioned,
    Control,
    Weighting,
    check_window,
    picture_size,
)
from training.sample.guidance import Adding, Influence, Predictor, Seeing, guide
from training.sample.repaint import Edit, Kept, paste

T = TypeVar("T")

STEPS = 20
GUIDANCE_SCALE = 9.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to sample.

    Attributes:
        steps: of DDIM.
        guidance_scale: strength of classifier-free guidance: 0 is without the prompt, 1 with it
            alone (and in half the time), above 1 beyond it.
        weighting: of the ControlNets' outputs.
    """

    steps: int = STEPS
    guidance_scale: float = GUIDANCE_SCALE
    weighting: Weighting = "even"


PAPER = Sampling()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """Pictures, and what they cost.

    Attributes:
        images: RGB, 0..255, one a seed.
        controlnet_calls: forward passes of all ControlNets; one makes a step of all the pictures.
            What a `Conditioned` denoiser does within is not counted.
        latents: what was decoded, scaled by the VAE's scaling factor.
    """

    images: list[Image]
    controlnet_calls: int
    latents: Float[Tensor, "b c y x"]


@torch.no_grad()
def sample(
    base: Base,
    controls: Sequence[Control] | Conditioned = (),
    *,
    seeds: Sequence[int],
    prompts: Sequence[str],
    negative_prompt: str = "",
    size: tuple[int, int] | None = None,
    sampling: Sampling = PAPER,
    unet: UNet2DConditionModel | None = None,
    edit: Edit | None = None,
    on_step: Callable[[], object] | None = None,
) -> Sampled:
    """Make one picture a seed, all in one batch.

    Equal seeds start from equal noise, whatever else is in the batch and on any device.

    Args:
        base: the locked model, on the device to use.
        controls: ControlNets; the outputs of several are added. None: the base alone. Or, in place
            of base and ControlNets, whatever was trained.
        seeds: one a picture.
        prompts: what to show; one a picture, or one for all. See `training.sample.prompts`.
        negative_prompt: what not to show.
        size: height and width of the pictures, in pixels; default the hints'.
        sampling: steps, guidance, weighting.
        unet: one trained beside a ControlNet, in place of the base's.
        edit: a picture of which only a part is painted anew.
        on_step: called after each step.

    Raises:
        SamplingError: no seeds, hints or prompts of another number, sizes that differ or that the
            base cannot make, a window outside 0..1 or between two steps, an edit that does not fit.
    """
    if not seeds:
        raise SamplingError("no seeds given: each image needs one")
    sources = [controls] if isinstance(controls, Conditioned) else controls
    hints = [hint for source in sources for hint in source.hints]
    height, width = picture_size(hints, size, base.scale)
    scheduler, device = base.sampling_scheduler(), base.unet.device
    scheduler.set_timesteps(sampling.steps, device=device)
    text = base.encode_text(_each(prompts, len(seeds), "prompts"))
    halves = 1 if sampling.guidance_scale == 1 else 2
    if halves == 2:
        text = joined([base.encode_text([negative_prompt] * len(seeds)), text])
    text = text.of_sizes([uncut(height, width)] * len(text))
    predict = _predictor(base, controls, unet or base.unet, len(seeds), halves, sampling)
    latents = initial_noise(base, seeds, height=height, width=width).to(device)
    kept = Kept(base, edit, latents) if edit else None
    for done, t in enumerate(scheduler.timesteps):
        latents = kept.put_back(latents, t) if kept else latents
        both = torch.cat([latents] * halves)
        predicted = predict(both, t, text, done=done, steps=sampling.steps).float()
        if halves == 2:
            predicted = guide(predicted, sampling.guidance_scale)
        latents = scheduler.step(predicted, t, latents).prev_sample
        if on_step is not None:
            on_step()
    latents = kept.put_back(latents, None) if kept else latents
    images = decode(base, latents)
    if edit is not None and edit.paste:
        images = [paste(edit, image) for image in images]
    return Sampled(images=images, controlnet_calls=predict.calls, latents=latents)


def initial_noise(
    base: Base, seeds: Sequence[int], *, height: int, width: int
) -> Float[Tensor, "b c y x"]:
    """Return standard normal latents on the CPU, each from its own seed; sizes in pixels."""
    shape = (base.vae.config.latent_channels, height // base.scale, width // base.scale)
    generators = (torch.Generator().manual_seed(seed) for seed in seeds)
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


@torch.no_grad()
def decode(base: Base, latents: Float[Tensor, "b c y x"]) -> list[Image]:
    """Decode scaled latents to RGB images, 0..255."""
    unit = (base.decode(latents) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
    return list((unit * 255).round().astype(np.uint8))


def _predictor(
    base: Base,
    controls: Sequence[Control] | Conditioned,
    unet: UNet2DConditionModel,
    count: int,
    halves: int,
    sampling: Sampling,
) -> Predictor:
    if isinstance(controls, Conditioned):
        hint = base.hint(to_unit(_each(controls.hints, count, "hints")).to(unet.device))
        return Seeing(controls.denoiser, hint, halves=halves)
    influences = [_influence(base, control, count, sampling.steps) for control in controls]
    return Adding(unet, influences, halves=halves, weighting=sampling.weighting)


def _influence(base: Base, control: Control, count: int, steps: int) -> Influence:
    check_window(control.window, steps)
    condition = to_unit(_each(control.hints, count, "hints")).to(control.controlnet.device)
    return Influence(
        controlnet=control.controlnet,
        hint=base.hint(condition),
        scale=control.scale,
        window=control.window,
        mid_only=control.mid_only,
    )


def _each(given: Sequence[T], count: int, what: str) -> list[T]:
    """Return one of `given` a picture; a single one stands for all."""
    if len(given) not in (1, count):
        raise SamplingError(f"{len(given)} {what} for {count} seeds: give one for each, or one")
    return list(given) * (count // len(given))
