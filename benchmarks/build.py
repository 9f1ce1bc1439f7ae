"""End-to-end Canny annotation, ours beside a plain loop of cv2 and webdataset.TarWriter.

    python benchmarks/build.py [--images FOLDER] [--repeat 16] [--rounds 3]

Both read the same files, crop and resize to 512 x 512, run Canny with drawn thresholds and write
WebDataset tars. Ours besides hashes, ranks, syncs to disk, records and commits, and can resume.
Without --images the photographs are those of scikit-image and matplotlib. Each is copied --repeat
times with a few bytes behind its end, so that the copies count as different images.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import webdataset

from catalog.dataset import Dataset
from pipeline.build import Inputs, build
from pipeline.demo import collect
from pipeline.execution import Execution
from pipeline.local_executor import run_local
from pipeline.recipe import load_recipe

SIDE = 512


class Silent:
    """Shows nothing."""

    def scanning(self) -> Callable[[int, int], None]:
        return lambda done, total: None

    def planned(self, units: int, pending: int, images: int) -> None: ...

    def unit_done(self, report: object) -> None: ...

    def unit_failed(self, failure: object) -> None: ...


def copies(originals: list[Path], folder: Path, repeat: int) -> list[Path]:
    folder.mkdir()
    made = []
    for number in range(repeat):
        for path in originals:
            target = folder / f"{number:03d}-{path.name}"
            target.write_bytes(path.read_bytes() + b"\n" + str(number).encode())
            made.append(target)
    return made


def plain_loop(images: list[Path], out: Path) -> int:
    """What one writes in half an hour: one process, no threads, no record of what was done."""
    draw = np.random.default_rng(0)
    out.mkdir()
    with webdataset.TarWriter(str(out / "000000.tar")) as writer:
        for number, path in enumerate(images):
            image = cv2.imread(str(path))
            height, width = image.shape[:2]
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            image = image[top : top + side, left : left + side]
            method = cv2.INTER_AREA if side >= SIDE else cv2.INTER_LANCZOS4
            image = cv2.resize(image, (SIDE, SIDE), interpolation=method)
            low = int(draw.integers(50, 151))
            high = low + int(draw.integers(50, 151))
            jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
            edges = cv2.imencode(".png", cv2.Canny(image, low, high))[1]
            sample = {"__key__": f"{number:09d}", "jpg": jpeg.tobytes(), "txt": ""}
            values = json.dumps({"low": low, "high": high})
            writer.write({**sample, "canny.png": edges.tobytes(), "json": values.encode()})
    return len(images)


def ours(images: list[Path], out: Path, *, threads: int) -> int:
    recipe = load_recipe("canny")
    inputs = Inputs(images=[str(images[0].parent)])
    execution = Execution(threads=threads)
    build(recipe, str(out), inputs, execution, executor=run_local, observer=Silent())
    return len(Dataset.open(str(out)).view())


def timed(function: Callable[[list[Path], Path], int], images: list[Path], out: Path) -> float:
    """Return images a second."""
    shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    done = function(images, out)
    seconds = time.perf_counter() - start
    assert done == len(images), f"{done} of {len(images)} images"
    return done / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--repeat", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cores = os.cpu_count() or 1
    cv2.setNumThreads(1)
    ways = {
        "plain loop (cv2 + TarWriter)": plain_loop,
        "ours, 1 thread": lambda images, out: ours(images, out, threads=1),
        f"ours, {cores} threads": lambda images, out: ours(images, out, threads=cores),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if options.images is None:
            collect(folder / "originals")
        found = sorted((options.images or folder / "originals").iterdir())
        originals = [path for path in found if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
        images = copies(originals, folder / "images", options.repeat)
        for _ in range(options.rounds):
            for name, function in ways.items():
                rates[name].append(timed(function, images, folder / "out"))
    print(f"{len(images)} images of {len(originals)} photographs, {cores} cores, images/s:")
    base = statistics.median(rates["plain loop (cv2 + TarWriter)"])
    for name, values in rates.items():
        middle = statistics.median(values)
        spread = f"{min(values):.1f}..{max(values):.1f}"
        print(f"{name:30} median {middle:6.1f} ({spread})  ratio {middle / base:.2f}")


if __name__ == "__main__":
    main()
