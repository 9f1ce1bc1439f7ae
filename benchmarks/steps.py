"""Where the milliseconds of one image go: each step of a Canny build beside the usual call for it.

    python benchmarks/steps.py [--images FOLDER] [--rounds 5]

One thread, files in memory; each step over all images, the fastest round counts. Beside ours stands
what does the same with Pillow and OpenCV, as format 2 of this project did, and with equal pixels:
the script checks that. Without --images the photographs are those of scikit-image and matplotlib.
"""

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps

if sys.path[0] == str(Path(__file__).parent):
    sys.path.pop(0)  # there benchmarks would hide the packages of their names

from catalog.images import decode, encode_jpeg, encode_png_as_before, fit
from catalog.memory import keep_freed_memory
from catalog.png import decode_png, encode_png
from catalog.sample import sha256_hex
from catalog.source.quality import measure
from detectors.base import generator_for
from detectors.canny import CannySpec
from pipeline.demo.photographs import collect

SIDE, LOW, HIGH = 512, 100, 200
SPEC = CannySpec(low=LOW, gap=HIGH - LOW)


def by_pillow(data: bytes) -> np.ndarray:
    """Check a JPEG by a small strict decode, and decode it again for its pixels."""
    if data.startswith(b"\xff\xd8\xff"):
        simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1, min_factor=8, fastdct=True)
    with Image.open(io.BytesIO(data)) as image:
        image.draft(image.mode, (SIDE, SIDE))
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def strictly(data: bytes) -> np.ndarray:
    return decode(data, at_least=SIDE, strict=True).pixels


def canny(image: np.ndarray) -> np.ndarray:
    return SPEC.annotate(image, None, generator_for("", "canny", 0)).map


def milliseconds(step: Callable[[Any], Any], items: Sequence[Any], rounds: int) -> float:
    """Return the time of one item in the fastest round."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        for item in items:
            step(item)
        taken.append(time.perf_counter() - start)
    return min(taken) / len(items) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        if options.images is None:
            collect(Path(scratch))
        found = sorted((options.images or Path(scratch)).iterdir())
        files = [one.read_bytes() for one in found if one.suffix in (".jpg", ".jpeg", ".png")]
    decoded = [strictly(data) for data in files]
    fitted = [fit(pixels, resolution=SIDE, crop="center") for pixels in decoded]
    maps = [canny(pixels) for pixels in fitted]
    alike = sum(np.array_equal(a, by_pillow(b)) for a, b in zip(decoded, files, strict=True))
    assert all(
        np.array_equal(cv2.Canny(a, LOW, HIGH), b) for a, b in zip(fitted, maps, strict=True)
    )
    assert all(np.array_equal(decode_png(encode_png(one)), one) for one in maps)
    steps: list[tuple[str, Sequence[Any], Callable[..., Any], Callable[..., Any] | None]] = [
        ("hash the file", files, sha256_hex, None),
        ("decode, refuse damage", files, strictly, by_pillow),
        ("measure colour, sharpness", decoded, measure, None),
        ("crop, resize", decoded, lambda p: fit(p, resolution=SIDE, crop="center"), None),
        ("Canny", fitted, canny, lambda p: cv2.Canny(p, LOW, HIGH)),
        ("encode the JPEG", fitted, lambda p: encode_jpeg(p, 95), None),
        ("encode the map", maps, encode_png, encode_png_as_before),
    ]
    usual = [
        None if peer is None else milliseconds(peer, items, options.rounds)
        for _, items, _, peer in steps
    ]
    keep_freed_memory()  # as a worker does, and a plain script does not
    ours = [milliseconds(step, items, options.rounds) for _, items, step, _ in steps]
    print(
        f"{len(files)} images, one thread; decoded to Pillow's pixels: {alike}, others by profile"
    )
    print("| step | ours, ms | usual, ms | ratio |\n|---|---:|---:|---:|")
    for (name, *_), mine, other in zip(steps, ours, usual, strict=True):
        beside = "| |" if other is None else f"{other:.2f} | {other / mine:.1f} |"
        print(f"| {name} | {mine:.2f} | {beside}")
    whole = sum(mine if other is None else other for mine, other in zip(ours, usual, strict=True))
    print(f"| together | {sum(ours):.2f} | {whole:.2f} | {whole / sum(ours):.1f} |")
    kept, before = (sum(map(len, map(how, maps))) for how in (encode_png, encode_png_as_before))
    print(f"\nmaps: {kept / len(maps) / 1024:.1f} KiB each, {before / len(maps) / 1024:.1f} before")


if __name__ == "__main__":
    main()
