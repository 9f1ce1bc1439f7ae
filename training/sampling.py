"""Images from a base and a ControlNet, as in the paper's section 4.1: DDIM, 20 steps, CFG 9.0."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
)
from jaxtyping import UInt8

from training.controlnet import Base
from training.data import to_unit
from training.errors import SamplingError

STEPS = 20
GUIDANCE_SCALE = 9.0


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


def generate(
    base: Base,
    controlnet: ControlNetModel,
    *,
    hint: UInt8[np.ndarray, "h w 3"],
    prompt: str,
    seeds: Sequence[int],
    negative_prompt: str = "",
    steps: int = STEPS,
    guidance_scale: float = GUIDANCE_SCALE,
    conditioning_scale: float = 1.0,
) -> list[UInt8[np.ndarray, "h w 3"]]:
    """Make one image a seed, of the height and width of `hint`.

    Args:
        base: the locked model, on the device to use.
        controlnet: on the same device, in the same precision.
        hint: the condition, RGB, 0..255.
        prompt: what to show; see `choose_prompt`.
        seeds: one a picture; equal seeds start from equal noise.
        negative_prompt: what not to show.
        steps: DDIM steps.
        guidance_scale: strength of classifier-free guidance; 1 turns it off.
        conditioning_scale: factor on the ControlNet's outputs; 0 leaves the base.

    Raises:
        SamplingError: no seeds, or a size that the base cannot make.
    """
    height, width = hint.shape[:2]
    pipeline = StableDiffusionControlNetPipeline(
        **_parts(base), controlnet=controlnet, requires_safety_checker=False
    )
    return _sample(
        pipeline,
        base,
        seeds,
        image=to_unit([hint]),
        controlnet_conditioning_scale=conditioning_scale,
        height=height,
        width=width,
        prompt=prompt,
        negative_prompt=negative_prompt,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
    )


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
) -> list[UInt8[np.ndarray, "h w 3"]]:
    """Make one image a seed with the base alone: what `generate` is compared with.

    Args:
        base: the locked model, on the device to use.
        height: of the images, in pixels.
        width: of the images, in pixels.
        prompt: what to show.
        seeds: one a picture.
        negative_prompt: what not to show.
        steps: DDIM steps.
        guidance_scale: strength of classifier-free guidance; 1 turns it off.

    Raises:
        SamplingError: no seeds, or a size that the base cannot make.
    """
    pipeline = StableDiffusionPipeline(**_parts(base), requires_safety_checker=False)
    return _sample(
        pipeline,
        base,
        seeds,
        height=height,
        width=width,
        prompt=prompt,
        negative_prompt=negative_prompt,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
    )


def _parts(base: Base) -> dict[str, Any]:
    return {
        "vae": base.vae,
        "text_encoder": base.text_encoder,
        "tokenizer": base.tokenizer,
        "unet": base.unet,
        "scheduler": ddim(base.scheduler),
        "safety_checker": None,
        "feature_extractor": None,
    }


def _sample(
    pipeline: Any, base: Base, seeds: Sequence[int], *, prompt: str, **call: Any
) -> list[UInt8[np.ndarray, "h w 3"]]:
    if not seeds:
        raise SamplingError("no seeds given: each image needs one")
    _check_size(call["height"], call["width"], base.scale)
    pipeline.set_progress_bar_config(disable=not sys.stderr.isatty())
    call["negative_prompt"] = [call["negative_prompt"]] * len(seeds)
    images = pipeline(
        prompt=[prompt] * len(seeds),
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="np",
        **call,
    ).images  # (B, h, w, 3), 0..1
    return list((images * 255).round().astype(np.uint8))


def _check_size(height: int, width: int, multiple: int) -> None:
    if height % multiple or width % multiple or not height or not width:
        fit = [max(multiple, side // multiple * multiple) for side in (width, height)]
        raise SamplingError(
            f"the condition is {width}x{height}; height and width must be multiples of {multiple} "
            f"pixels: crop or resize it, for example to {fit[0]}x{fit[1]}"
        )
