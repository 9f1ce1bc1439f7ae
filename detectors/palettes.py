"""Colours of class ids."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from jaxtyping import Bool, Integer, UInt8

from detectors.errors import DetectorError

PaletteName = Literal["ade20k", "coco_stuff"]

ADE20K_CLASSES = 150
COCO_STUFF_CLASSES = 182
_BLACK = (0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """Colours of a dataset's class ids.

    Attributes:
        name: of the palette.
        ids: the ids that there are, in words, for errors.
        colours: of ids 0..255; black where there is no such id.
        known: which of 0..255 are ids.
        unlabelled: id of pixels without a class; black.
    """

    name: PaletteName
    ids: str
    colours: UInt8[np.ndarray, "256 3"]
    known: Bool[np.ndarray, "256"]
    unlabelled: int

    def painted(self, ids: Integer[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
        """Return each pixel's colour.

        Raises:
            DetectorError: an id is not the palette's.
        """
        if ids.size and (ids.min() < 0 or ids.max() > 255 or not self.known[ids].all()):
            strange = [one for one in np.unique(ids).tolist() if not self._knows(one)]
            raise DetectorError(
                f"class ids {', '.join(map(str, strange[:5]))} are not {self.name}'s, which are "
                f"{self.ids}: is this label of another dataset?"
            )
        painted: np.ndarray = self.colours[ids]
        return painted

    def _knows(self, one: int) -> bool:
        return 0 <= one <= 255 and bool(self.known[one])


@cache
def palette(name: PaletteName) -> Palette:
    """Return a palette by its name."""
    return _ade20k() if name == "ade20k" else _coco_stuff()


def _ade20k() -> Palette:
    """ADE20K's 150 classes, in the colours that ControlNet's segmentation model was trained on."""
    from detectors.runtimes.on_torch import quietly

    with quietly():
        from controlnet_aux.util import ade_palette

        rows = ade_palette()
    return _palette(
        "ade20k", "0 (no class) and 1..150", first=1, rows=rows[:ADE20K_CLASSES], unlabelled=0
    )


def _coco_stuff() -> Palette:
    """COCO-Stuff's 182 classes in the colours of Pascal VOC's scheme, continued.

    The dataset's own colour map has black for all 91 things, and jet, whose 91 steps nobody tells
    apart, for the stuff; no ControlNet's is published. VOC's spreads an id's bits over the three
    channels, so that no two classes are closer than 32 levels.
    """
    rows = [voc_colour(id_ + 1) for id_ in range(COCO_STUFF_CLASSES)]  # VOC's 0 is black
    return _palette("coco_stuff", "0..181 and 255 (no class)", first=0, rows=rows, unlabelled=255)


def voc_colour(index: int) -> tuple[int, int, int]:
    """Return the colour of an index 0..255 as Pascal VOC's development kit makes it."""
    channels = [0, 0, 0]
    for triple in range(3):  # the three lowest bits to the channels' highest, and so on
        for channel in range(3):
            channels[channel] |= (index >> (3 * triple + channel) & 1) << (7 - triple)
    red, green, blue = channels
    return red, green, blue


def _palette(
    name: PaletteName,
    ids: str,
    *,
    first: int,
    rows: list[list[int]] | list[tuple[int, int, int]],
    unlabelled: int,
) -> Palette:
    colours = np.zeros((256, 3), np.uint8)
    colours[first : first + len(rows)] = rows
    known = np.zeros(256, bool)
    known[first : first + len(rows)] = True
    known[unlabelled] = True
    return Palette(name=name, ids=ids, colours=colours, known=known, unlabelled=unlabelled)
