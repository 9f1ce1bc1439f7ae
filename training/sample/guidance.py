"""What predicts in the sampler: ControlNets inside their windows, classifier-free guidance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, cast

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from jaxtyping import Float, Int64
from torch import Tensor

from training.model.denoiser import Denoiser
from training.model.text import Text
from training.sample.controls import Weighting, Window, acts

_Outputs: TypeAlias = list[Tensor]
"""A ControlNet's outputs in the order of its encoder, the middle block's last; (b, c, y, x)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Influence:
    """A ControlNet at work.

    Attributes:
        controlnet: on the base's device.
        hint: conditions, 0..1, on the device.
        scale: factor on its outputs.
        window: the share of the steps in which it acts; see `training.sample.controls`.
        mid_only: only the middle block's output is added.
    """

    controlnet: ControlNetModel
    hint: Float[Tensor, "b 3 h w"]
    scale: float
    window: Window
    mid_only: bool


class Predictor(Protocol):
    """Predicts for a batch; with classifier-free guidance its unconditional half comes first."""

    @property
    def calls(self) -> int:
        """Forward passes of ControlNets so far; one covers all pictures and both halves."""
        ...

    def __call__(
        self,
        noisy: Float[Tensor, "b c y x"],
        t: Int64[Tensor, ""],
        text: Text,
        *,
        done: int,
        steps: int,
    ) -> Float[Tensor, "b c y x"]:
        """Return the prediction for the step after `done` of `steps`."""
        ...


class Seeing:
    """A denoiser that takes its condition in every step, as the concat baseline does."""

    calls = 0

    def __init__(self, denoiser: Denoiser, hint: Float[Tensor, "b 3 h w"], *, halves: int) -> None:
        self._denoiser = denoiser
        self._hint = torch.cat([hint] * halves)

    def __call__(
        self, noisy: Tensor, t: Tensor, text: Text, *, done: int, steps: int
    ) -> Float[Tensor, "b c y x"]:
        """Return the denoiser's prediction."""
        return cast(Tensor, self._denoiser(noisy, t.expand(len(noisy)), text, self._hint))


class Adding:
    """A UNet to which the outputs of ControlNets are added."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        influences: Sequence[Influence],
        *,
        halves: int,
        weighting: Weighting = "even",
    ) -> None:
        """Prepare for a run of the sampler.

        Args:
            unet: the base's, or one trained beside a ControlNet.
            influences: ControlNets at work; none leave the UNet alone.
            halves: 2 with classifier-free guidance, else 1.
            weighting: of the ControlNets' outputs.
        """
        self._unet = unet
        self._influences = influences
        self._halves = halves
        self._weighting = weighting
        self.calls = 0
        """Forward passes of ControlNets so far; one covers all pictures and both halves."""

    def __call__(
        self, noisy: Tensor, t: Tensor, text: Text, *, done: int, steps: int
    ) -> Float[Tensor, "b c y x"]:
        """Return the UNet's prediction with the outputs of the ControlNets that act now."""
        dtype = self._unet.dtype
        acting = [one for one in self._influences if acts(one.window, done, steps)]
        residuals = [output.to(dtype) for output in self._sum(acting, noisy, t, text)]
        (predicted,) = self._unet(
            noisy.to(dtype),
            t,
            encoder_hidden_states=text.tokens.to(dtype),
            added_cond_kwargs=text.added,
            down_block_additional_residuals=residuals[:-1] or None,
            mid_block_additional_residual=residuals[-1] if residuals else None,
            return_dict=False,
        )
        return cast(Tensor, predicted)

    def _sum(self, acting: Sequence[Influence], noisy: Tensor, t: Tensor, text: Text) -> _Outputs:
        """Return the sum of the outputs of all that act; nothing where none does."""
        conditional_only = self._weighting != "even" and self._halves == 2
        if conditional_only:
            noisy, text = noisy.chunk(2)[1], text[len(text) // 2 :]
        self.calls += len(acting)
        outputs = [self._outputs(one, noisy, t, text) for one in acting]
        summed = [sum(several[1:], several[0]) for several in zip(*outputs, strict=True)]
        if not conditional_only:
            return summed
        return [torch.cat([torch.zeros_like(output), output]) for output in summed]

    def _outputs(self, influence: Influence, noisy: Tensor, t: Tensor, text: Text) -> _Outputs:
        controlnet, dtype = influence.controlnet, influence.controlnet.dtype
        seen = text.to(dtype)
        copies = len(noisy) // len(influence.hint)
        down, middle = controlnet(
            noisy.to(dtype),
            t,
            encoder_hidden_states=seen.tokens,
            added_cond_kwargs=seen.added,
            controlnet_cond=torch.cat([influence.hint] * copies).to(dtype),
            conditioning_scale=influence.scale,
            guess_mode=self._weighting == "guess",
            return_dict=False,
        )
        if influence.mid_only:
            down = [torch.zeros_like(output) for output in down]
        outputs = [*down, middle]
        if self._weighting != "resolution":
            return outputs
        weights = resolution_weights([output.shape[-2] for output in outputs])
        return [output * weight for output, weight in zip(outputs, weights, strict=True)]


def guide(predicted: Float[Tensor, "b2 c y x"], guidance_scale: float) -> Float[Tensor, "b c y x"]:
    """Go from the unconditional half of a prediction towards, and beyond, the conditional one."""
    free, conditional = predicted.chunk(2)
    return free + guidance_scale * (conditional - free)


def resolution_weights(heights: Sequence[int]) -> list[float]:
    """Return the weight of each output by the height of its block: 64 / h at 64 latent rows.

    So the finest block has 1 and the middle block of Stable Diffusion 8; latents of other heights
    keep these weights. Source: CFG resolution weighting, section 3.4 of the paper as published.
    """
    return [max(heights) / height for height in heights]
