"""Masked diffusion (figure 16): repaint a part of a picture, keep the rest."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from training.data.pixels import as_signed, stack
from training.errors import SamplingError
from training.model.base import Base

_WHITE = 128  # from here on a pixel of a mask is white


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A picture, and the part of it that is painted anew.

    Attributes:
        source: RGB, 0..255.
        mask: of the source's size; WHITE (128..255) REPAINTS, black keeps, as in diffusers. The
            original code has it the other way round.
        paste: take the kept pixels from the source. Else they come out of the VAE, which changes
            every pixel a little, and the repainted part grows to whole latent cells.
    """

    source: UInt8[np.ndarray, "h w 3"]
    mask: UInt8[np.ndarray, "h w"]
    paste: bool = True


class Kept:
    """The latents of what is kept, at any level of noise."""

    def __init__(self, base: Base, edit: Edit, noise: Float[Tensor, "b c y x"]) -> None:
        """Encode the source once, as the mean of what the VAE gives.

        Args:
            base: on its device.
            edit: for all pictures of the batch.
            noise: what the pictures start from, on the base's device.

        Raises:
            SamplingError: source, mask and pictures differ in size, or nothing is white.
        """
        height, width = (side * base.scale for side in noise.shape[-2:])
        check_edit(edit, height=height, width=width)
        pixels = as_signed(stack([edit.source]))
        self._clean = base.encode_images(pixels, torch.zeros(1, *noise.shape[1:]))
        self._repaints = cells_to_repaint(edit.mask, base.scale).to(noise)
        self._noise = noise
        self._base = base

    def put_back(
        self, latents: Float[Tensor, "b c y x"], t: Int64[Tensor, ""] | None
    ) -> Float[Tensor, "b c y x"]:
        """Replace the cells that are kept by the source's, noised to step `t`; None: clean."""
        known = self._clean
        if t is not None:
            known = self._base.add_noise(known.expand_as(self._noise), self._noise, t[None])
        return torch.where(self._repaints.bool(), latents, known)


def cells_to_repaint(
    mask: UInt8[np.ndarray, "h w"], scale: int
) -> Float[Tensor, "1 1 height_of_latents width_of_latents"]:
    """Return 1 for each latent cell, of `scale` pixels a side, with a white pixel, else 0."""
    white = torch.from_numpy(mask >= _WHITE).float()
    return F.max_pool2d(white[None, None], scale)


def paste(edit: Edit, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Return the image with the source's own pixels where the mask is black."""
    return np.where((edit.mask >= _WHITE)[:, :, None], image, edit.source)


def check_edit(edit: Edit, *, height: int, width: int) -> None:
    """Raise SamplingError where source and mask do not fit pictures of a size in pixels."""
    for name, shape in (("picture to edit", edit.source.shape), ("mask", edit.mask.shape)):
        if shape[:2] != (height, width):
            raise SamplingError(
                f"the {name} is {shape[1]}x{shape[0]}, the condition {width}x{height}: "
                "bring them to one size"
            )
    if edit.mask.max(initial=0) < _WHITE:
        raise SamplingError("the mask is all black, so nothing is repainted: white repaints")
