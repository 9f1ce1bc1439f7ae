"""What SDXL is told of a picture's sizes (Podell et al., 2023, section 2.2: micro-conditioning).

Its six numbers, in pixels, in the order of diffusers' ``time_ids``: height and width of the file
that the picture came from; top and left of what is shown, in that file scaled to the size in which
it was cut; height and width of what is shown.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

MicroConditions: TypeAlias = tuple[int, int, int, int, int, int]


def uncut(height: int, width: int) -> MicroConditions:
    """Return the sizes of a picture that was neither scaled nor cut, in pixels."""
    return height, width, 0, 0, height, width


def micro_conditions(
    metadata: Mapping[str, Any],
    stored: tuple[int, int],
    *,
    square: tuple[slice, slice] | None = None,
    mirrored: bool = False,
) -> MicroConditions:
    """Return the sizes of a sample as it is shown.

    A stored square is the middle of its source (``image.crop: center``); what is stored otherwise
    is the whole source, with sides rounded to the grid.

    Args:
        metadata: the sample's json; where it tells no source, the source is what is stored.
        stored: (height, width) of the stored picture, in pixels.
        square: rows and columns of it that are shown; None for all.
        mirrored: whether it was mirrored left to right before it is shown.
    """
    height, width = stored
    source = metadata.get("source", {})
    original = int(source.get("height", height)), int(source.get("width", width))
    scaled = stored
    if height == width:
        scale = height / min(original)
        scaled = round(original[0] * scale), round(original[1] * scale)
    top, left = ((whole - side) // 2 for whole, side in zip(scaled, stored, strict=True))
    shown = stored
    if square is not None:
        top, left = top + square[0].start, left + square[1].start
        shown = square[0].stop - square[0].start, square[1].stop - square[1].start
    if mirrored:
        left = scaled[1] - left - shown[1]
    return *original, top, left, *shown
