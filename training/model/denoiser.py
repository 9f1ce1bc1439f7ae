"""What predicts the noise: the base's UNet, and the network that learns beside it (paper 3.2)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from jaxtyping import Float, Int64
from torch import nn

from training.model.text import Text
from training.settings.phases import Scope, Trains

UNET = "unet"
"""Subfolder of a run or checkpoint that holds a trained UNet, in diffusers' layout."""

_DECODER = ("up_blocks", "conv_norm_out", "conv_out")


class Denoiser(nn.Module):
    """A UNet that sees a condition.

    Attributes:
        unet: the base's, locked or trained.
    """

    unet: UNet2DConditionModel

    def forward(
        self,
        noisy: Float[torch.Tensor, "b c y x"],
        timesteps: Int64[torch.Tensor, " b"],
        text: Text,
        hint: Float[torch.Tensor, "b 3 h w"],
    ) -> Float[torch.Tensor, "b c y x"]:
        """Return the prediction, in the UNet's precision; hints are 0..1, of the image's size."""
        raise NotImplementedError

    def groups(self) -> list[list[nn.Parameter]]:
        """Return the weights for the optimizer; a group that a later phase adds stands last."""
        raise NotImplementedError

    def networks(self) -> Iterator[tuple[str, Any]]:
        """Yield what learns, each network with its subfolder; "" is the folder itself."""
        raise NotImplementedError

    def enable_gradient_checkpointing(self) -> None:
        """Compute activations again in the backward pass, for less memory."""
        for _, network in self.networks():
            network.enable_gradient_checkpointing()

    def save(self, folder: Path) -> None:
        """Write what learns, each network in diffusers' own layout."""
        for name, network in self.networks():
            network.save_pretrained(folder / name, safe_serialization=True)


class Controlled(Denoiser):
    """A UNet with a ControlNet's outputs added to its skip connections and middle block (Eq. 2).

    Args:
        unet: the base's; where it learns, in fp32.
        controlnet: the trainable copy.
        trains: ``mid_only`` adds only the middle block's output and freezes the layers of the
            others, which would have no gradient.
        scope: which part of the UNet learns where `trains` is ``unlocked``.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        controlnet: ControlNetModel,
        *,
        trains: Trains = "full",
        scope: Scope = "decoder",
    ) -> None:
        super().__init__()
        self.unet = unet
        self.controlnet = controlnet
        self.mid_only = trains == "mid_only"
        self._scope = scope if trains == "unlocked" else None
        controlnet.requires_grad_(True).train()
        controlnet.controlnet_down_blocks.requires_grad_(not self.mid_only)
        unet.requires_grad_(False).eval()
        for parameter in self._unlocked():
            parameter.requires_grad_(True)

    def forward(
        self,
        noisy: Float[torch.Tensor, "b c y x"],
        timesteps: Int64[torch.Tensor, " b"],
        text: Text,
        hint: Float[torch.Tensor, "b 3 h w"],
    ) -> Float[torch.Tensor, "b c y x"]:
        """Return the prediction, in the UNet's precision; hints are 0..1, of the image's size."""
        down, middle = self.controlnet(
            noisy,
            timesteps,
            encoder_hidden_states=text.tokens,
            controlnet_cond=hint,
            added_cond_kwargs=text.added,
            return_dict=False,
        )
        if self.mid_only:
            down = [torch.zeros_like(residual) for residual in down]
        dtype = self.unet.dtype
        (predicted,) = self.unet(
            noisy.to(dtype),
            timesteps,
            encoder_hidden_states=text.tokens,
            added_cond_kwargs=text.added,
            down_block_additional_residuals=[residual.to(dtype) for residual in down],
            mid_block_additional_residual=middle.to(dtype),
            return_dict=False,
        )
        return cast(torch.Tensor, predicted)

    def groups(self) -> list[list[nn.Parameter]]:
        """Return the ControlNet's weights and, unlocked, the UNet's that learn."""
        unlocked = self._unlocked()
        return [list(self.controlnet.parameters()), *([unlocked] if unlocked else [])]

    def networks(self) -> Iterator[tuple[str, Any]]:
        """Yield the ControlNet and, unlocked, the UNet."""
        yield "", self.controlnet
        if self._scope:
            yield UNET, self.unet

    def _unlocked(self) -> list[nn.Parameter]:
        if self._scope is None:
            return []
        parts = _DECODER if self._scope == "decoder" else ("",)
        return [weight for part in parts for weight in self.unet.get_submodule(part).parameters()]
