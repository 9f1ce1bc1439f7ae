"""ControlNet for an arbitrary block of a network (paper 3.1, Fig. 2, Eq. 1-9).

training/model/controlnet.py applies the same to Stable Diffusion, through diffusers.
"""

import copy
from typing import Any, Literal, Self, cast

import torch
from torch import nn

Features = Literal["maps", "vectors"]
"""``maps`` are (b c h w); ``vectors`` have their channels last: (b c), or tokens (b n c)."""


def zero_layer(features: Features, channels: int, out_channels: int) -> nn.Conv2d | nn.Linear:
    """Return the paper's zero convolution: 1x1, its weight and its bias zero (Eq. 5).

    Args:
        features: ``vectors`` have no place to convolve over; their 1x1 convolution is linear.
        channels: of what goes in.
        out_channels: of what comes out.
    """
    layer = (
        nn.Conv2d(channels, out_channels, 1)
        if features == "maps"
        else nn.Linear(channels, out_channels)
    )
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class ControlledBlock(nn.Module):
    """A locked block, its trainable copy, and the zero convolutions that join them (Eq. 2).

    Args:
        block: y = F(x; Theta), any network; it becomes the locked copy: eval mode, no gradients.
        features: what x, y and the condition are.
        channels: of x.
        out_channels: of y; None where y has as many as x.
        condition_channels: of the condition; None where it has as many as x.
    """

    def __init__(
        self,
        block: nn.Module,
        *,
        features: Features,
        channels: int,
        out_channels: int | None = None,
        condition_channels: int | None = None,
    ) -> None:
        super().__init__()
        made = channels if out_channels is None else out_channels
        given = channels if condition_channels is None else condition_channels
        self.trainable = copy.deepcopy(block).requires_grad_(True).train()
        self.locked = block.requires_grad_(False).eval()
        self.zero_in = zero_layer(features, given, channels)
        self.zero_out = zero_layer(features, made, made)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all but the locked copy, whose statistics stay as they are."""
        super().train(mode)
        self.locked.eval()
        return self

    def forward(self, x: torch.Tensor, condition: torch.Tensor, *others: Any) -> torch.Tensor:
        """Return y_c = F(x; Theta) + Z(F(x + Z(c; Theta_z1); Theta_c); Theta_z2).

        Args:
            x: the block's input.
            condition: c, like x but for its channels.
            others: what the block takes besides x, such as a time embedding; both copies see it.
        """
        controlled = self.trainable(x + self.zero_in(condition), *others)
        return cast(torch.Tensor, self.locked(x, *others) + self.zero_out(controlled))
