"""Pictures for probes and evaluations: what `training.adherence.Sampler` asks for."""

from collections.abc import Sequence

from diffusers import ControlNetModel

from training.adherence import Image, Sampler
from training.controlnet import Base
from training.sampling import GUIDANCE_SCALE, STEPS, generate, generate_base


def controlled(
    base: Base,
    controlnet: ControlNetModel,
    *,
    steps: int = STEPS,
    guidance_scale: float = GUIDANCE_SCALE,
) -> Sampler:
    """Return what samples with a ControlNet; the arguments are those of `generate`."""

    def sample(
        hints: Sequence[Image], prompts: Sequence[str], seeds: Sequence[int]
    ) -> Sequence[Image]:
        return [
            generate(
                base,
                controlnet,
                hint=hint,
                prompt=prompt,
                seeds=[seed],
                steps=steps,
                guidance_scale=guidance_scale,
            )[0]
            for hint, prompt, seed in zip(hints, prompts, seeds, strict=True)
        ]

    return sample


def uncontrolled(
    base: Base, *, steps: int = STEPS, guidance_scale: float = GUIDANCE_SCALE
) -> Sampler:
    """Return what samples with the base alone: it takes no more than its size from a hint."""

    def sample(
        hints: Sequence[Image], prompts: Sequence[str], seeds: Sequence[int]
    ) -> Sequence[Image]:
        return [
            generate_base(
                base,
                height=hint.shape[0],
                width=hint.shape[1],
                prompt=prompt,
                seeds=[seed],
                steps=steps,
                guidance_scale=guidance_scale,
            )[0]
            for hint, prompt, seed in zip(hints, prompts, seeds, strict=True)
        ]

    return sample
