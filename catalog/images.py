"""Bytes to pixels and back: one image convention, one resizer.

An image is a uint8 RGB array (h, w, 3), upright, without alpha. Detectors and the training loader
see nothing else.
"""

import io
import math
from dataclasses import dataclass, replace
from typing import IO, Literal, TypeAlias

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image as PILImage
from PIL import ImageOps, UnidentifiedImageError

from catalog.colour import conversion, in_srgb
from catalog.decoders import JPEGS, decode_plainly
from catalog.errors import ImageError, of_the_place

Image: TypeAlias = UInt8[np.ndarray, "h w 3"]
Crop: TypeAlias = Literal["center", "none"]
Ground: TypeAlias = Literal["white", "black"]

GRID = 64
"""Uncropped sides are multiples of this many pixels: the VAE's 8 times the UNet's 8."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "GIF")
"""Pillow's names of what is read (JPEG reads MPO).

Its other plugins never see a stranger's bytes: one of them hands PostScript to an interpreter.
"""

_ORIENTATION = 0x0112
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_LARGEST = 2**31 - 1  # tables hold 32 bits; whoever claims more is refused by max_pixels anyway


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file says of its picture before a pixel is decoded.

    Attributes:
        width: pixels, after EXIF rotation.
        height: pixels, after EXIF rotation.
        format: Pillow's name of the format, for example ``JPEG``.
        plain: the bytes are an upright RGB JPEG, whose pixels are fit to be stored as they are.
    """

    width: int
    height: int
    format: str
    plain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """Pixels and how they were decoded.

    Attributes:
        pixels: uint8 RGB (h, w, 3).
        jpeg_scale: 1, 2, 4 or 8: the divisor at which the JPEG was decoded.
        header: what the file said of itself.
    """

    pixels: Image
    jpeg_scale: int
    header: Header


def read_header(file: IO[bytes]) -> Header:
    """Read size and format without decoding pixels.

    Raises:
        ImageError: rule ``empty_file``, ``not_an_image`` or ``animated``.
    """
    with _open(file) as image:
        return _header(image)


def decode(
    data: bytes,
    *,
    at_least: int | None = None,
    ground: Ground = "white",
    strict: bool = False,
) -> Decoded:
    """Decode to upright RGB in sRGB; alpha is composited, 16-bit grey keeps its high byte.

    Args:
        data: the file's bytes.
        at_least: pixels. A JPEG whose short side is at least twice this is decoded at 1/2, 1/4 or
            1/8
            of its size (libjpeg's scaled DCT), never below this side. None decodes at full size.
        ground: what lies behind transparent pixels: white for photographs, black for maps and
            masks, whose own ground it is.
        strict: refuse a JPEG that decodes, but not without a complaint, too: bytes in its middle
            are missing, or are no picture. Otherwise only what ends early is refused.

    Raises:
        ImageError: rule ``empty_file``, ``not_an_image``, ``animated``, ``unsupported_mode`` or
            ``damaged`` (a truncated file too: no picture is filled up with grey).
    """
    with _open(io.BytesIO(data)) as image:
        header = _header(image)
        full_width = image.width
        if at_least is not None and image.format in JPEGS:
            image.draft(image.mode, (at_least, at_least))
        scale = round(full_width / image.width)
        turned = _orientation(image)
        found = decode_plainly(data, image, orientation=turned, strict=strict)
        if found is not None:
            header = replace(header, plain=header.plain and conversion(image) is None)
            return Decoded(pixels=found, jpeg_scale=scale, header=header)
        try:
            image.load()
            upright = ImageOps.exif_transpose(image) if turned != 1 else image
            converted = in_srgb(upright)
        except Exception as error:  # Pillow's plugins raise a dozen types on broken data
            raise _damaged(f"cannot decode: {error}", error) from error
        if converted is not None:
            header = replace(header, plain=False)
        pixels = _to_rgb(upright if converted is None else converted, ground)
        return Decoded(pixels=pixels, jpeg_scale=scale, header=header)


def pixels_decoded(width: int, height: int, *, jpeg: bool, at_least: int | None = None) -> int:
    """Return how many pixels `decode` holds of an image of this size at once."""
    scale = 1
    while (
        jpeg and at_least is not None and scale < 8 and min(width, height) >= 2 * scale * at_least
    ):
        scale *= 2
    return math.ceil(width / scale) * math.ceil(height / scale)


def decode_image(data: bytes, *, ground: Ground = "white") -> Image:
    """Decode to an upright RGB array (h, w, 3) at full size; raises ImageError as `decode` does."""
    return decode(data, ground=ground).pixels


def target_size(width: int, height: int, *, resolution: int, crop: Crop) -> tuple[int, int]:
    """Return the (width, height) in pixels at which an image is annotated and stored.

    ``center`` gives the paper's square; ``none`` brings the short side to `resolution` and rounds
    both sides to multiples of 64, for aspect buckets.
    """
    if crop == "center":
        return resolution, resolution
    scale = resolution / min(width, height)
    return _to_grid(width * scale), _to_grid(height * scale)


def fit(pixels: Image, *, resolution: int, crop: Crop) -> Image:
    """Crop and resize to `target_size`: AREA to shrink, LANCZOS4 to enlarge.

    Returns the input itself where it has the size already.
    """
    height, width = pixels.shape[:2]
    if crop == "center":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    size = target_size(width, height, resolution=resolution, crop=crop)
    return resize(pixels, size)


def resize(pixels: Image, size: tuple[int, int]) -> Image:
    """Resize to (width, height) pixels: AREA where both sides shrink, else LANCZOS4."""
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return np.ascontiguousarray(pixels)
    shrinks = size[0] <= width and size[1] <= height
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4
    return np.asarray(cv2.resize(pixels, size, interpolation=method), dtype=np.uint8)


def encode_jpeg(pixels: Image, quality: int) -> bytes:
    """Encode as a baseline JPEG; quality 1..100."""
    return _encode(".jpg", pixels, cv2.IMWRITE_JPEG_QUALITY, quality)


def encode_png_as_before(pixels: UInt8[np.ndarray, "h w *c"]) -> bytes:
    """Encode as datasets of format 2 have it: by libpng and zlib at level 1, 8 bits a channel."""
    return _encode(".png", pixels, cv2.IMWRITE_PNG_COMPRESSION, 1)


def _encode(suffix: str, pixels: UInt8[np.ndarray, "h w *c"], option: int, value: int) -> bytes:
    # OpenCV, because Pillow's encoders hold the interpreter lock and threads would wait.
    colours = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    done, data = cv2.imencode(suffix, colours, [option, value])
    assert done, f"OpenCV cannot encode {pixels.shape} as {suffix}"
    return bytes(data.tobytes())


def _open(file: IO[bytes]) -> PILImage.Image:
    # Size is judged by the recipe's max_pixels, which leaves a row; Pillow's own limit would raise.
    PILImage.MAX_IMAGE_PIXELS = None
    try:
        return PILImage.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        file.seek(0)
        if not file.read(1):
            raise ImageError("empty_file", "the file has zero bytes", value=0) from error
        raise ImageError("not_an_image", "no image format is recognised in the bytes") from error
    except Exception as error:  # a plugin that trips over a malformed header
        raise _damaged(f"cannot read the header: {error}", error) from error


def _damaged(message: str, error: Exception) -> Exception:
    """Return what to raise for what a decoder raised: disk, network and memory stay themselves."""
    return error if of_the_place(error) else ImageError("damaged", message)


def _header(image: PILImage.Image) -> Header:
    kind = "JPEG" if image.format in JPEGS else str(image.format)
    frames = 1 if kind == "JPEG" else _frames(image)
    if frames > 1:
        raise ImageError("animated", f"{frames} frames, expected 1", value=frames)
    turned = _orientation(image)
    width, height = (min(side, _LARGEST) for side in image.size)
    if turned >= 5 and image.format != "TIFF":  # Pillow gives a TIFF's size as it will be shown
        width, height = height, width
    plain = kind == "JPEG" and image.mode == "RGB" and turned == 1
    return Header(width=width, height=height, format=kind, plain=plain)


def _frames(image: PILImage.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception as error:  # counting frames walks the file
        raise _damaged(f"cannot count frames: {error}", error) from error


def _orientation(image: PILImage.Image) -> int:
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode all pixels to look for EXIF behind them
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception as error:  # broken EXIF is common; Pillow shows such pictures unrotated too
        if of_the_place(error):
            raise
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: PILImage.Image, ground: Ground) -> Image:
    if image.mode in _SIXTEEN_BIT:
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ImageError("unsupported_mode", f"mode {image.mode} has no fixed range of values")
    try:
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            image = PILImage.new("RGBA", rgba.size, ground)
            image.alpha_composite(rgba)
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except ValueError as error:
        raise ImageError("unsupported_mode", f"mode {image.mode}: {error}") from error


def _to_grid(side: float) -> int:
    return max(GRID, round(side / GRID) * GRID)
