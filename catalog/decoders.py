"""The pixels that Pillow gives of common JPEGs and PNGs, by decoders that are faster.

They hear the complaints as well that Pillow is silent about. What is not common is Pillow's.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image as PILImage

from catalog.colour import conversion
from catalog.errors import ImageError

JPEGS = ("JPEG", "MPO")
"""Pillow's names of a JPEG; a phone's MPO is one with a preview behind it."""

_Image: TypeAlias = UInt8[np.ndarray, "h w 3"]

_DEPTH, _COLOURS = slice(24, 25), slice(25, 26)  # of a PNG's first chunk
_AS_IT_LIES = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_FATAL)  # what it refuses, Pillow judges


def decode_plainly(
    data: bytes, image: PILImage.Image, *, orientation: int, strict: bool
) -> _Image | None:
    """Decode to upright RGB in sRGB, or return None where Pillow must judge.

    Args:
        data: the file's bytes.
        image: the same, opened by Pillow and not loaded, a JPEG at the size that is wanted.
        orientation: EXIF's, 1..8.
        strict: see `catalog.images.decode`.

    Raises:
        ImageError: rule ``damaged``, of a strictly judged JPEG.
    """
    if image.format in JPEGS and image.mode in ("RGB", "L"):
        pixels = _decode_jpeg(data, image, strict)
    elif image.format in JPEGS and strict:
        _refuse_damaged(data)
        return None
    elif image.format == "PNG" and orientation == 1:
        pixels = _decode_png(data, image)
    else:
        return None
    if pixels is None or pixels.shape[:2] != (image.height, image.width):
        return None
    convert = conversion(image)
    if convert is not None:
        if image.mode == "L":
            return None
        pixels = np.asarray(convert(PILImage.fromarray(pixels)))
    return np.ascontiguousarray(_TURNS[orientation](pixels))


def _decode_jpeg(data: bytes, image: PILImage.Image, strict: bool) -> _Image | None:
    try:
        return np.asarray(
            simplejpeg.decode_jpeg(
                data, "RGB", min_width=image.width, min_height=image.height, strict=True
            )
        )
    except ValueError as complaint:
        if strict:
            _refuse_damaged(data, complaint)
        return None


def _decode_png(data: bytes, image: PILImage.Image) -> _Image | None:
    """Decode a still PNG of 8 bits, grey or RGB, without profile; a damaged one gives None."""
    common = data[_DEPTH] == b"\x08" and data[_COLOURS] in (b"\0", b"\2")
    special = {"transparency", "icc_profile"} & image.info.keys()
    moving = getattr(image, "custom_mimetype", None) is not None
    if not common or special or moving:
        return None
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), _AS_IT_LIES)
    return None if decoded is None else np.asarray(decoded, dtype=np.uint8)


def _refuse_damaged(jpeg: bytes, complaint: ValueError | None = None) -> None:
    """Raise ImageError for a JPEG that decodes, but not without a complaint.

    An eighth of the size is asked for: all data are read for that. What cannot be decoded at all
    is a kind that this decoder has not, or no JPEG: Pillow judges it.

    Args:
        jpeg: the file's bytes.
        complaint: of the decoder; None where it was not asked yet.
    """
    small = partial(simplejpeg.decode_jpeg, jpeg, "GRAY", min_height=1, min_width=1, min_factor=8)
    try:
        if complaint is None:
            small(strict=True, fastdct=True)
            return
    except ValueError as error:
        complaint = error
    try:
        small(strict=False, fastdct=True)
    except ValueError:
        return
    raise ImageError("damaged", f"the JPEG decodes with: {complaint}") from complaint


_TURNS: dict[int, Callable[[_Image], _Image]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}
"""EXIF's orientation -> how the picture is turned upright."""
