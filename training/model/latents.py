"""What the locked networks make of a sample, ahead of training: moments of the latent, and text."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8

from catalog.dataset.latents import Identity, Precision, Stored, pooled_name, text_name
from training.data.pixels import to_unit
from training.errors import DataError
from training.model.base import Base
from training.model.files import BaseFiles


def identity_of(
    files: BaseFiles, *, precision: Precision, stored: Stored, text: bool, mirrored: bool
) -> Identity:
    """Return what latents by this base are kept under.

    Args:
        files: of the base.
        precision: type of the numbers that they compute in.
        stored: type of the numbers on disk.
        text: whether captions are encoded as well.
        mirrored: whether mirrored images are.
    """
    return Identity(
        vae=files.vae_sha256(),
        text_encoder=files.text_sha256() if text else None,
        precision=precision,
        stored=stored,
        mirrored=mirrored,
    )


def image_moments(
    base: Base, images: Sequence[UInt8[np.ndarray, "h w 3"]]
) -> Float[np.ndarray, "b c h w"]:
    """Return mean and log-variance, stacked, of RGB images of one size; see `Base.moments`.

    Raises:
        DataError: a number is not finite.
    """
    pixels = to_unit(images).to(base.vae.device) * 2 - 1
    return _finite(base.moments(pixels), "the autoencoder")


def text_embeddings(
    base: Base, captions: Sequence[str]
) -> dict[str, Float[np.ndarray, "1 rows width"]]:
    """Return what the base sees of captions, under the names that it is kept by.

    Raises:
        DataError: a number is not finite.
    """
    text = base.encode_text(captions)
    kept = {text_name: text.tokens}
    if text.pooled is not None:
        kept[pooled_name] = text.pooled[:, None]
    return {
        name(caption): array[None]
        for name, made in kept.items()
        for caption, array in zip(captions, _finite(made.float(), "the text encoder"), strict=True)
    }


def _finite(made: torch.Tensor, network: str) -> np.ndarray:
    found = made.cpu().numpy()
    if not np.isfinite(found).all() or np.abs(found).max(initial=0) > np.finfo(np.float16).max:
        raise DataError(f"{network} gave numbers beyond fp16: precompute with --precision fp32")
    return found
