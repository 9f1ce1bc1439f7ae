"""Images from a base and its ControlNets, as in the paper's section 4.1: DDIM, 20 steps, CFG 9.0.

The loop is our own, because a ControlNet does not run outside its window here; diffusers'
StableDiffusionControlNetPipeline runs it at every step and adds zeros. In all else the two agree.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from diffusers import ControlNetModel, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from jaxtyping import Float, UInt8
from torch import Tensor

from training.controlnet import Base
from training.data import to_unit
from training.errors import SamplingError
from training.guidance import Guided, Influence, Weighting, Window, acts
from training.masks import Edit, Kept, paste

Image: TypeAlias = UInt8[np.ndarray, "h w 3"]
T = TypeVar("T")

STEPS = 20
GUIDANCE_SCALE = 9.0
WHOLE: Window = (0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A ControlNet, what it is shown, how much and when it acts.

    Attributes:
        controlnet: on the base's device.
        hints: conditions, RGB 0..255; one a picture, or one for all of them.
        scale: factor on its outputs; 0 leaves the base.
        window: the share of the steps in which it acts, first and last, 0..1; it does not run in
            the others. (0, 0.5) is the coarse control of figure 27.
        mid_only: only the middle block's output is added, as while it was trained so.
    """

    controlnet: ControlNetModel
    hints: Sequence[Image]
    scale: float = 1.0
    window: Window = WHOLE
    mid_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to sample.

    Attributes:
        steps: of DDIM.
        guidance_scale: strength of classifier-free guidance; 1 turns it off.
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
        latents: what was decoded, scaled by the VAE's scaling factor.
    """

    images: list[Image]
    controlnet_calls: int
    latents: Float[Tensor, "b c y x"]


def ddim(trained: DDPMScheduler) -> DDIMScheduler:
    """Return the DDIM sampler of the noise levels that a base was trained with.

    Twenty of 1,000 timesteps are 951, 901, ..., 1, as in the original code; diffusers' own defaults
    end at 0 and clip.
    """
    return DDIMScheduler.from_config(
        trained.config,
        steps_offset=1,
        set_alpha_to_one=False,
        clip_sample=False,
        timestep_spacing="leading",
    )


@torch.no_grad()
def sample(
    base: Base,
    controls: Sequence[Control] = (),
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
        controls: ControlNets; the outputs of several are added. None: the base alone.
        seeds: one a picture.
        prompts: what to show; one a picture, or one for all. See `training.prompts`.
        negative_prompt: what not to show.
        size: height and width of the pictures, in pixels; default the hints'.
        sampling: steps, guidance, weighting.
        unet: a trained one in place of the base's.
        edit: a picture of which only a part is painted anew.
        on_step: called after each step.

    Raises:
        SamplingError: no seeds, hints or prompts of another number, sizes that differ or that the
            base cannot make, a window outside 0..1 or between two steps, an edit that does not fit.
    """
    if not seeds:
        raise SamplingError("no seeds given: each image needs one")
    hints = [hint for control in controls for hint in control.hints]
    height, width = picture_size(hints, size, base.scale)
    scheduler, device = ddim(base.scheduler), base.unet.device
    scheduler.set_timesteps(sampling.steps, device=device)
    guided = Guided(
        unet or base.unet,
        [_influence(control, len(seeds), sampling.steps, device) for control in controls],
        text=base.encode_text(_each(prompts, len(seeds), "prompts")),
        negative=base.encode_text([negative_prompt] * len(seeds)),
        guidance_scale=sampling.guidance_scale,
        weighting=sampling.weighting,
    )
    latents = initial_noise(base, seeds, height=height, width=width).to(device)
    kept = Kept(base, edit, latents, scheduler) if edit else None
    for done, t in enumerate(scheduler.timesteps):
        latents = kept.put_back(latents, t) if kept else latents
        predicted = guided(latents, t, done=done, steps=sampling.steps)
        latents = scheduler.step(predicted, t, latents).prev_sample
        if on_step is not None:
            on_step()
    latents = kept.put_back(latents, None) if kept else latents
    images = decode(base, latents)
    if edit is not None and edit.paste:
        images = [paste(edit, image) for image in images]
    return Sampled(images=images, controlnet_calls=guided.calls, latents=latents)


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
    unscaled = (latents / base.vae.config.scaling_factor).to(base.vae.dtype)
    decoded = base.vae.decode(unscaled, return_dict=False)[0].float()  # (b, 3, h, w), -1..1
    unit = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
    return list((unit * 255).round().astype(np.uint8))


def generate(
    base: Base,
    controlnet: ControlNetModel,
    *,
    hint: Image,
    prompt: str,
    seeds: Sequence[int],
    negative_prompt: str = "",
    steps: int = STEPS,
    guidance_scale: float = GUIDANCE_SCALE,
    conditioning_scale: float = 1.0,
) -> list[Image]:
    """Make one image a seed of the hint's size: `sample` with one ControlNet and prompt."""
    control = Control(controlnet=controlnet, hints=[hint], scale=conditioning_scale)
    return sample(
        base,
        [control],
        seeds=seeds,
        prompts=[prompt],
        negative_prompt=negative_prompt,
        sampling=Sampling(steps=steps, guidance_scale=guidance_scale),
    ).images


def generate_base(
    base: Base,
    *,
    height: int,
    width: int,
    prompt: str,
    seeds: Sequence[int],
    negative_prompt: str = "",
    steps: int = STEPS,
    guidance_scale: float = GUIDANCE_SCALE,
) -> list[Image]:
    """Make one image a seed with the base alone: what `generate` is compared with."""
    return sample(
        base,
        seeds=seeds,
        prompts=[prompt],
        negative_prompt=negative_prompt,
        size=(height, width),
        sampling=Sampling(steps=steps, guidance_scale=guidance_scale),
    ).images


def check_window(window: Window, steps: int) -> None:
    """Raise SamplingError where a window is no part of 0..1, or holds none of the steps."""
    first, last = window
    if not 0 <= first < last <= 1:
        raise SamplingError(
            f"the window is {first:g} to {last:g}; expected two shares of the steps with "
            "0 <= first < last <= 1, for example 0 0.5"
        )
    if not any(acts(window, done, steps) for done in range(steps)):
        raise SamplingError(
            f"no whole step of {steps} lies in the window {first:g} to {last:g}: widen it"
        )


def picture_size(
    hints: Sequence[Image], size: tuple[int, int] | None, multiple: int
) -> tuple[int, int]:
    """Return height and width, in pixels, of pictures with these hints.

    Args:
        hints: must all have one size.
        size: height and width asked for; None: the hints'.
        multiple: pixels that a latent cell has a side.

    Raises:
        SamplingError: the sizes differ, there are none, or the base cannot make them.
    """
    sizes = {hint.shape[:2] for hint in hints} | ({size} if size else set())
    if len(sizes) != 1:
        listed = ", ".join(f"{width}x{height}" for height, width in sorted(sizes)) or "none"
        raise SamplingError(f"pictures made at once have one size, got {listed}")
    height, width = sizes.pop()
    if height % multiple or width % multiple or not height or not width:
        fit = [max(multiple, side // multiple * multiple) for side in (width, height)]
        raise SamplingError(
            f"the condition is {width}x{height}; height and width must be multiples of {multiple} "
            f"pixels: crop or resize it, for example to {fit[0]}x{fit[1]}"
        )
    return height, width


def _influence(control: Control, count: int, steps: int, device: torch.device) -> Influence:
    check_window(control.window, steps)
    return Influence(
        controlnet=control.controlnet,
        hint=to_unit(_each(control.hints, count, "hints")).to(device),
        scale=control.scale,
        window=control.window,
        mid_only=control.mid_only,
    )


def _each(given: Sequence[T], count: int, what: str) -> list[T]:
    """Return one of `given` a picture; a single one stands for all."""
    if len(given) not in (1, count):
        raise SamplingError(f"{len(given)} {what} for {count} seeds: give one for each, or one")
    return list(given) * (count // len(given))
