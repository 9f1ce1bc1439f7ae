"""What the locked networks make of a sample, ahead of training: moments of the latent, and text."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from catalog.dataset.latents import Identity, Precision, Stored
from training.data.pixels import to_unit
from training.errors import DataError
from training.model.base import Base, weights_sha256

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


def identity_of(
    folder: Path, *, precision: Precision, stored: Stored, text: bool, mirrored: bool
) -> Identity:
    """Return what latents by this base are kept under.

    Args:
        folder: of the base.
        precision: type of the numbers that they compute in.
        stored: type of the numbers on disk.
        text: whether captions are encoded as well.
        mirrored: whether mirrored images are.
    """
    return Identity(
        vae=weights_sha256(folder, "vae"),
        text_encoder=weights_sha256(folder, "text_encoder") if text else None,
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


def text_embeddings(base: Base, captions: Sequence[str]) -> Float[np.ndarray, "b tokens width"]:
    """Return c_t of captions; see `Base.encode_text`. Raises as `image_moments` does."""
    return _finite(base.encode_text(captions).float(), "the text encoder")


def _finite(made: torch.Tensor, network: str) -> np.ndarray:
    found = made.cpu().numpy()
    if not np.isfinite(found).all() or np.abs(found).max(initial=0) > np.finfo(np.float16).max:
        raise DataError(f"{network} gave numbers beyond fp16: precompute with --precision fp32")
    return found
