"""The network that turns the condition into features of the latents' size (paper 3.2, Eq. 9).

``released`` is what the paper's authors published and diffusers builds: 3x3 convolutions with SiLU,
the last one zero. ``paper`` is what the paper describes, as far as it can be: read literally, four
4x4 convolutions of stride 2 turn 512 pixels into 32, and the same paragraph says 64. As the sum
with the latents' features needs 64, the last of the four keeps its size here. The paper gives the
Gaussian no width; this takes He's for ReLU. A zero convolution then widens 128 channels to the
UNet's first width, so that either encoder adds nothing before it is trained.
"""

from collections.abc import Sequence
from functools import wraps
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers import ControlNetModel
from jaxtyping import Float
from torch import nn

from training.errors import BaseModelError
from training.model.controlled_block import zero_layer
from training.settings.config import HintEncoder

HINT_CHANNELS: dict[HintEncoder, tuple[int, ...]] = {
    "released": (16, 32, 96, 256),
    "paper": (16, 32, 64, 128),
}
"""Widths of the hint encoders; each step to the right halves the resolution."""


def hint_channels(hint_encoder: HintEncoder, scale: int) -> tuple[int, ...]:
    """Return a hint encoder's widths for latents of `scale` pixels a cell.

    Raises:
        BaseModelError: `scale` is not one of 1, 2, 4 and 8.
    """
    channels = HINT_CHANNELS[hint_encoder]
    halvings = scale.bit_length() - 1
    if halvings >= len(channels):
        raise BaseModelError(
            f"the base's VAE has {scale} pixels a latent cell; the {hint_encoder} hint encoder "
            f"reaches {2 ** (len(channels) - 1)}: take a Stable Diffusion 1.x or 2.x base"
        )
    return channels[: halvings + 1]


class PaperHintEncoder(nn.Module):
    """4x4 convolutions with ReLU, all but the last of stride 2, then a zero convolution.

    Args:
        width: channels of the result, the UNet's first.
        channels: of each convolution; (16, 32, 64, 128) turns 512 pixels into 64.
    """

    def __init__(self, width: int, channels: Sequence[int]) -> None:
        super().__init__()
        steps = pairwise((3, *channels))
        strides = [2] * (len(channels) - 1) + [1]
        self.convolutions = nn.ModuleList(
            _gaussian(given, made, stride)
            for (given, made), stride in zip(steps, strides, strict=True)
        )
        self.conv_out = zero_layer("maps", channels[-1], width)

    def forward(self, hint: Float[torch.Tensor, "b 3 h w"]) -> Float[torch.Tensor, "b width y x"]:
        """Return c_f, the features of a condition 0..1."""
        features = hint
        *halving, last = self.convolutions
        for convolution in halving:
            features = F.relu(convolution(features))
        features = F.pad(features, (0, 1, 0, 1))  # an even kernel of stride 1 loses a row otherwise
        return cast(torch.Tensor, self.conv_out(F.relu(last(features))))


def _gaussian(channels: int, out_channels: int, stride: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, out_channels, 4, stride=stride, padding=1)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(cast(torch.Tensor, layer.bias))
    return layer


class PaperControlNet(ControlNetModel):  # type: ignore[misc]  # diffusers has no types
    """diffusers' ControlNet with the paper's hint encoder; config.json names this class.

    `ControlNetModel.from_pretrained` refuses its weights, as they have other shapes.
    """

    # diffusers reads the names of a config's fields off this signature
    @wraps(ControlNetModel.__init__)  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.controlnet_cond_embedding = PaperHintEncoder(
            self.config.block_out_channels[0], self.config.conditioning_embedding_out_channels
        )


CONTROLNETS: dict[HintEncoder, type[ControlNetModel]] = {
    "released": ControlNetModel,
    "paper": PaperControlNet,
}
"""The class of a ControlNet by its hint encoder; config.json names it."""
