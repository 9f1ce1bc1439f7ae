"""Colours as a viewer shows them: pictures with a profile of their own, converted to sRGB."""

import io
from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
from PIL import Image as PILImage
from PIL import ImageCms

_CONVERTED = {"RGB": "RGB", "RGBA": "RGBA", "CMYK": "RGB", "L": "RGB"}
_IDENTICAL = 2  # levels of 255: sRGB comes in many tables, which round otherwise


def in_srgb(image: PILImage.Image) -> PILImage.Image | None:
    """Return a loaded picture converted to sRGB, by the profile that it brings.

    Args:
        image: with ``info["icc_profile"]``, in a mode that a profile can speak of.

    Returns:
        A new picture, or None where its numbers are sRGB's already: there is no profile, it is
        sRGB's own, or none that can be read, which viewers leave out as well.
    """
    convert = conversion(image)
    return None if convert is None else convert(image)


def conversion(
    image: PILImage.Image,
) -> Callable[[PILImage.Image], PILImage.Image | None] | None:
    """Return what converts pictures of an opened one's mode to sRGB; None as `in_srgb` does."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in _CONVERTED:
        return None
    transform = _transform(profile, image.mode)
    return None if transform is None else partial(ImageCms.applyTransform, transform=transform)


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            _CONVERTED[mode],
        )
        return transform if _changes(transform, mode) else None
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None  # broken, or of another kind than the picture


def _changes(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Say whether a transform moves a grid of colours."""
    if mode == "CMYK":
        return True
    levels = np.linspace(0, 255, 18).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(18, -1, 3)
    probe = PILImage.fromarray(grid).convert(mode)
    made = ImageCms.applyTransform(probe, transform)
    return made is None or _distance(made, probe) > _IDENTICAL


def _distance(one: PILImage.Image, other: PILImage.Image) -> int:
    pair = [np.asarray(picture.convert("RGB")).astype(int) for picture in (one, other)]
    return int(np.abs(pair[0] - pair[1]).max())
