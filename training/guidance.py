"""One prediction of the sampler: ControlNets inside their windows, classifier-free guidance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from jaxtyping import Float, Int64
from torch import Tensor

Weighting = Literal["even", "guess", "resolution"]
"""How strongly a ControlNet's outputs act, and on which half of the guidance.

``even``: all alike, on the unconditional and the conditional half. ``guess``: from 0.1 at the
finest resolution to 1 at the middle block, on the conditional half only (diffusers' guess mode).
``resolution``: by `resolution_weights`, on the conditional half only.
"""

Window: TypeAlias = tuple[float, float]

_Outputs: TypeAlias = list[Tensor]
"""A ControlNet's outputs in the order of its encoder, the middle block's last; (b, c, y, x)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Influence:
    """A ControlNet at work.

    Attributes:
        controlnet: on the base's device.
        hint: conditions, 0..1, on the device.
        scale: factor on its outputs.
        window: the share of the steps in which it acts; see `acts`.
        mid_only: only the middle block's output is added.
    """

    controlnet: ControlNetModel
    hint: Float[Tensor, "b 3 h w"]
    scale: float
    window: Window
    mid_only: bool


class Guided:
    """Predicts under classifier-free guidance, and counts the ControlNets' calls."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        influences: Sequence[Influence],
        *,
        text: Float[Tensor, "b tokens width"],
        negative: Float[Tensor, "b tokens width"],
        guidance_scale: float,
        weighting: Weighting = "even",
        channels: Float[Tensor, "b k y x"] | None = None,
    ) -> None:
        """Prepare for pictures of these texts.

        Args:
            unet: the base's, or one trained with the condition.
            influences: ControlNets; their outputs are added.
            text: of the prompts.
            negative: of the negative prompts.
            guidance_scale: 1 or less takes the conditional half alone.
            weighting: of the ControlNets' outputs.
            channels: what a UNet of method concat takes beside the latents.
        """
        self._unet = unet
        self._influences = influences
        self._halves = 2 if guidance_scale > 1 else 1
        self._text = torch.cat([negative, text]) if self._halves == 2 else text
        self._guidance_scale = guidance_scale
        self._weighting = weighting
        self._channels = channels
        self.calls = 0
        """Forward passes of ControlNets so far; one covers all pictures and both halves."""

    def __call__(
        self, noisy: Float[Tensor, "b c y x"], t: Int64[Tensor, ""], *, done: int, steps: int
    ) -> Float[Tensor, "b c y x"]:
        """Return the guided prediction, in fp32, for the step after `done` of `steps`."""
        dtype = self._unet.dtype
        outputs = self._controls(noisy, t, done, steps)
        residuals = [output.to(dtype) for output in outputs]
        seen = noisy if self._channels is None else torch.cat([noisy, self._channels], dim=1)
        (predicted,) = self._unet(
            torch.cat([seen] * self._halves).to(dtype),
            t,
            encoder_hidden_states=self._text.to(dtype),
            down_block_additional_residuals=residuals[:-1] or None,
            mid_block_additional_residual=residuals[-1] if residuals else None,
            return_dict=False,
        )
        if self._halves == 1:
            return cast(Tensor, predicted.float())
        free, conditional = predicted.float().chunk(2)
        return cast(Tensor, free + self._guidance_scale * (conditional - free))

    def _controls(self, noisy: Tensor, t: Tensor, done: int, steps: int) -> _Outputs:
        """Return the sum of the outputs of all that act now; nothing where none does."""
        acting = [one for one in self._influences if acts(one.window, done, steps)]
        self.calls += len(acting)
        outputs = [self._outputs(one, noisy, t) for one in acting]
        summed = [sum(several[1:], several[0]) for several in zip(*outputs, strict=True)]
        if self._weighting == "even" or self._halves == 1:
            return summed
        return [torch.cat([torch.zeros_like(output), output]) for output in summed]

    def _outputs(self, influence: Influence, noisy: Tensor, t: Tensor) -> _Outputs:
        controlnet, dtype = influence.controlnet, influence.controlnet.dtype
        copies = self._halves if self._weighting == "even" else 1
        down, middle = controlnet(
            torch.cat([noisy] * copies).to(dtype),
            t,
            encoder_hidden_states=self._text[-copies * len(noisy) :].to(dtype),
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


def acts(window: Window, done: int, steps: int) -> bool:
    """Say whether the step after `done` of `steps` lies within a window of shares 0..1.

    The first half, (0, 0.5), of 20 steps is exactly the steps 0 to 9.
    """
    return window[0] <= done / steps and (done + 1) / steps <= window[1]


def resolution_weights(heights: Sequence[int]) -> list[float]:
    """Return the weight of each output by the height of its block: 64 / h at 64 latent rows.

    So the finest block has 1 and the middle block of Stable Diffusion 8; latents of other heights
    keep these weights. Source: CFG resolution weighting, section 3.4 of the paper as published.
    """
    return [max(heights) / height for height in heights]
