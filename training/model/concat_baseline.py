"""The baseline of the paper's Fig. 20: the condition as further input channels of the UNet.

So Stability's depth model was made from Stable Diffusion 2: the condition shrinks to the latents'
size, further channels of the first convolution read it, and the whole UNet is trained.
"""

import copy
from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int64
from torch import nn

from training.model.denoiser import UNET, Denoiser
from training.model.text import Text

CONDITION_CHANNELS = 3


class Concat(Denoiser):
    """A UNet that reads the condition beside the noisy latents; all of it learns.

    Args:
        unet: of `concat_unet`, in fp32.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet.requires_grad_(True).train()

    def forward(
        self,
        noisy: Float[torch.Tensor, "b c y x"],
        timesteps: Int64[torch.Tensor, " b"],
        text: Text,
        hint: Float[torch.Tensor, "b 3 h w"],
    ) -> Float[torch.Tensor, "b c y x"]:
        """Return the prediction, in the UNet's precision; hints are 0..1, of the image's size."""
        condition = as_latent_channels(hint, (noisy.shape[-2], noisy.shape[-1]))
        (predicted,) = self.unet(
            torch.cat([noisy, condition.to(noisy)], dim=1).to(self.unet.dtype),
            timesteps,
            encoder_hidden_states=text.tokens,
            added_cond_kwargs=text.added,
            return_dict=False,
        )
        return cast(torch.Tensor, predicted)

    def groups(self) -> list[list[nn.Parameter]]:
        """Return the UNet's weights, in one group."""
        return [list(self.unet.parameters())]

    def networks(self) -> Iterator[tuple[str, Any]]:
        """Yield the UNet."""
        yield UNET, self.unet


def concat_unet(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Return a copy of a base's UNet with zero weights for the condition's channels.

    The zeros leave the prediction as it is: bit for bit where the convolution of more channels sums
    in the same order, else but for rounding.
    """
    widened = copy.deepcopy(unet)
    first = widened.conv_in
    channels_behind = (0, 0, 0, 0, 0, CONDITION_CHANNELS)
    first.weight = nn.Parameter(F.pad(first.weight.detach(), channels_behind))
    first.in_channels += CONDITION_CHANNELS
    widened.register_to_config(in_channels=first.in_channels)
    return widened


def reads_condition(unet: UNet2DConditionModel, base: UNet2DConditionModel) -> bool:
    """Say whether `unet` is a trained `concat_unet` of `base`."""
    return bool(unet.config.in_channels == base.config.in_channels + CONDITION_CHANNELS)


def as_latent_channels(
    hint: Float[torch.Tensor, "b 3 h w"], size: tuple[int, int]
) -> Float[torch.Tensor, "b 3 y x"]:
    """Return conditions 0..1 in the latents' `size`, each stretched to -1..1; a constant is -1."""
    small = F.interpolate(hint.float(), size=size, mode="bicubic", align_corners=False)
    low, high = (edge(small, dim=(1, 2, 3), keepdim=True) for edge in (torch.amin, torch.amax))
    spread = (high - low).clamp(min=1e-3)  # bicubic rounding of a constant is no contrast
    return (small - low) / spread * 2 - 1
