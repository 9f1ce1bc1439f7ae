"""A bad source made of good photographs: copies, near copies, greyscale, damaged, blurred ones.

Of 100 files 40 are exact copies, 10 near copies, 10 greyscale, 5 damaged, 5 blurred, 30 clean.
Greyscale, damaged and blurred ones are made of photographs of which no other file is made, since a
greyscale copy is a near duplicate as well, and either rule would be right.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from catalog.images import Image, decode_image, encode_jpeg
from catalog.png import encode_png

Kind = Literal["clean", "exact", "near", "grey", "damaged", "blurred"]

_UNIQUE = {"clean": 0.6, "grey": 0.2, "damaged": 0.1, "blurred": 0.1}  # of the photographs
_COPIES = {"exact": 0.8, "near": 0.2}

HOSTILE_CAPTIONS = (
    "<script>alert(1)</script>", "'; DROP TABLE samples; --", "a\u202eb \u0000 \u001b[31mred",
    "{{7*7}} ${HOME} $(id) `id`", "x" * 100_000, "\ufeff  \n\t ", "\U0001f600" * 50,
    "=cmd|' /C calc'!A0",
)  # fmt: skip
HOSTILE_NAMES = (
    "<img src=x onerror=alert(1)>", "--help", "a b\tc", "100%25 &amp; more", "new\nline",
    "\u202egnp.exe", "'\"`$(id)", ".hidden", "x" * 150, "[bold]markup",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """A file of the source: what it is, and the photograph that it is made of."""

    kind: Kind
    photograph: str


def write_planted(folder: Path, photographs: list[Path], seed: int = 0) -> dict[Path, Planted]:
    """Write the source; return what each of its images is."""
    draws = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    shuffled = [photographs[at] for at in draws.permutation(len(photographs))]
    counts = {kind: round(share * len(photographs)) for kind, share in _UNIQUE.items()}
    given = iter(shuffled)
    unique = {kind: list(islice(given, count)) for kind, count in counts.items()}
    written: dict[Path, Planted] = {}

    def write(kind: Kind, photograph: Path, data: bytes, name: str) -> Path:
        path = folder / (name + (".jpg" if data.startswith(b"\xff\xd8") else ".png"))
        path.write_bytes(data)
        written[path] = Planted(kind=kind, photograph=photograph.name)
        return path

    for at, photograph in enumerate(unique["clean"]):
        name = HOSTILE_NAMES[at] if at < len(HOSTILE_NAMES) else f"clean-{at}"
        path = write("clean", photograph, photograph.read_bytes(), name)
        path.with_suffix(".txt").write_text(HOSTILE_CAPTIONS[at % len(HOSTILE_CAPTIONS)])
    makers: dict[Kind, Callable[[Image, np.random.Generator], Iterator[bytes]]] = {
        "grey": _grey,
        "damaged": _damaged,
        "blurred": _blurred,
        "near": _near,
    }
    copies = round(len(photographs) * _COPIES["near"])
    unique["near"] = list(islice(cycle(unique["clean"]), copies))
    for kind, make in makers.items():
        for at, photograph in enumerate(unique[kind]):
            ways = list(make(decode_image(photograph.read_bytes()), draws))
            write(kind, photograph, ways[at % len(ways)], f"{kind}-{at}")
    for at in range(round(len(photographs) * _COPIES["exact"])):
        photograph = unique["clean"][int(draws.integers(len(unique["clean"])))]
        write("exact", photograph, photograph.read_bytes(), f"exact-{at}")
    return written


def _resized(pixels: Image, scale: float) -> Image:
    size = round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))


def _cropped(pixels: Image, share: float, draws: np.random.Generator) -> Image:
    """Cut off `share` of the height and of the width, somehow shared between the sides."""
    height, width = pixels.shape[:2]
    top, left = (round(draws.uniform(0, share) * side) for side in (height, width))
    bottom = height - (round(share * height) - top)
    right = width - (round(share * width) - left)
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def _near(pixels: Image, draws: np.random.Generator) -> Iterator[bytes]:
    yield encode_jpeg(_resized(pixels, draws.uniform(0.4, 0.9)), 90)
    yield encode_jpeg(pixels, int(draws.integers(30, 80)))
    yield encode_jpeg(_cropped(pixels, 0.02, draws), 90)
    yield encode_jpeg(_resized(_cropped(pixels, 0.02, draws), 0.7), 60)
    yield encode_png(_resized(pixels, 0.5))
    yield encode_jpeg(_cropped(pixels, 0.03, draws), 75)


def _grey(pixels: Image, draws: np.random.Generator) -> Iterator[bytes]:
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    three = np.repeat(grey[:, :, None], 3, axis=2)
    yield encode_jpeg(three, 90)
    yield encode_jpeg(three, 50)
    yield encode_png(np.ascontiguousarray(grey))
    tinted = np.clip(three.astype(int) * 15 // 16 + [10, 5, 0], 0, 255).astype(np.uint8)
    yield encode_jpeg(tinted, 80)  # warm, evenly: nearly greyscale


def _damaged(pixels: Image, draws: np.random.Generator) -> Iterator[bytes]:
    data = encode_jpeg(pixels, 90)
    at, hole = round(len(data) * draws.uniform(0.3, 0.8)), 600
    yield data[:at]
    yield data[:at] + b"\xff\xd9"
    yield data[:at] + data[at + hole :]
    yield data[:at] + draws.bytes(hole) + data[at + hole :]
    filled = pixels.copy()
    filled[round(len(pixels) * draws.uniform(0.5, 0.9)) :] = 128
    yield encode_jpeg(filled, 90)  # somebody decoded a truncated file, and stored it again


def _blurred(pixels: Image, draws: np.random.Generator) -> Iterator[bytes]:
    scale = min(pixels.shape[:2]) / 512
    for sigma in (2.0, 3.0, 5.0):
        yield encode_jpeg(cv2.GaussianBlur(pixels, (0, 0), sigma * max(scale, 1)), 85)
