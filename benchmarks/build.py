"""End-to-end Canny annotation, ours beside a plain loop and beside Ray Data's own pieces.

    python benchmarks/build.py [--images FOLDER] [--repeat 16] [--rounds 3] [--without-ray]

All read the same files, crop and resize to 512 x 512, run Canny with drawn thresholds and write
WebDataset tars. Ours besides hashes, ranks, measures colour and sharpness (at thresholds that keep
all), refuses damage, syncs to disk, records and commits, and can resume.
The plain loop is one process of cv2 and webdataset.TarWriter; Ray Data's is read_images,
map_batches and write_webdataset. Ray itself runs before the clock starts; starting workers counts,
for both. Units are of 64 images.
Without --images the photographs are those of scikit-image and matplotlib. Each is copied --repeat
times with a few bytes behind its end, so that the copies count as different images.
"""

import argparse
import json
import logging
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import webdataset

if sys.path[0] == str(Path(__file__).parent):
    sys.path.pop(0)  # there benchmarks would hide the packages of their names

from catalog.dataset.dataset import Dataset
from pipeline.attempts.outcome import UnitReport
from pipeline.build.build import Executor, build
from pipeline.build.local import run_local
from pipeline.demo.photographs import collect
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import load_recipe
from pipeline.scan.source import Inputs

SIDE = 512
PLAIN = "plain loop (cv2 + TarWriter)"
STAGES: Counter[str] = Counter()


class Watch:
    """Shows nothing, and adds up where the time of units goes."""

    def scanning(self) -> Callable[[int, int], None]:
        return lambda done, total: None

    def planned(self, units: int, pending: int, images: int) -> None: ...

    def unit_done(self, report: UnitReport) -> None:
        STAGES.update(report.stages)

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


def shrink(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    image = image[top : top + side, left : left + side]
    method = cv2.INTER_AREA if side >= SIDE else cv2.INTER_LANCZOS4
    return cv2.resize(image, (SIDE, SIDE), interpolation=method)


def sample_of(number: int, bgr: np.ndarray, draw: np.random.Generator) -> dict[str, Any]:
    """Return what a plain script writes for one image, encoded."""
    image = shrink(bgr)
    low = int(draw.integers(50, 151))
    high = low + int(draw.integers(50, 151))
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    edges = cv2.imencode(".png", cv2.Canny(image, low, high))[1]
    values = json.dumps({"low": low, "high": high}).encode()
    texts = {"txt": b"", "json": values}
    return {
        "__key__": f"{number:09d}",
        "jpg": jpeg.tobytes(),
        "canny.png": edges.tobytes(),
        **texts,
    }


def plain_loop(images: list[Path], out: Path) -> int:
    """What one writes in half an hour: one process, no threads, no record of what was done."""
    draw = np.random.default_rng(0)
    out.mkdir()
    with webdataset.TarWriter(str(out / "000000.tar")) as writer:
        for number, path in enumerate(images):
            writer.write(sample_of(number, cv2.imread(str(path)), draw))
    return len(images)


def annotate_batch(batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
    """What `ray_data` maps: a batch of RGB images to the members of a sample."""
    cv2.setNumThreads(1)
    draw = np.random.default_rng(0)
    rows = [sample_of(0, image[..., ::-1], draw) for image in batch["image"]]
    for row, path in zip(rows, batch["path"], strict=True):
        row["__key__"] = Path(path).stem
    return {name: [row[name] for row in rows] for name in rows[0]}


def ray_data(images: list[Path], out: Path) -> int:
    """Ray Data's own reader, map and WebDataset writer, on all cores."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    read = ray.data.read_images([str(path) for path in images], include_paths=True, mode="RGB")
    read.map_batches(annotate_batch, batch_size=32).write_webdataset(str(out), encoder=None)
    return sum(
        1 for tar in out.glob("*.tar") for _ in webdataset.WebDataset(str(tar), shardshuffle=False)
    )


def ours(images: list[Path], out: Path, *, executor: Executor, **resources: int) -> int:
    keep_all = [f"rules.{name}=0" for name in ("min_chroma", "min_sharpness", "min_contrast")]
    recipe = load_recipe("canny", ["samples_per_unit=64", "captions.captioner=sidecar", *keep_all])
    inputs = Inputs(images=[str(images[0].parent)])
    execution = Execution(**resources)
    build(recipe, str(out), inputs, execution, executor=executor, observer=Watch())
    return len(Dataset.open(str(out)).view())


def timed(function: Callable[[list[Path], Path], int], images: list[Path], out: Path) -> float:
    """Return images a second."""
    shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    done = function(images, out)
    seconds = time.perf_counter() - start
    assert done == len(images), f"{done} of {len(images)} images"
    return done / seconds


def ways(with_ray: bool) -> dict[str, Callable[[list[Path], Path], int]]:
    cores = os.cpu_count() or 1
    found: dict[str, Callable[[list[Path], Path], int]] = {
        PLAIN: plain_loop,
        "ours, 1 thread": partial(ours, executor=run_local, threads=1),
        f"ours, {cores} threads": partial(ours, executor=run_local, threads=cores),
    }
    if with_ray:
        import ray

        from pipeline.build.on_ray import run_on_ray

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
        found["Ray Data: read, map, write"] = ray_data
        for actors in (1, 2):
            way = partial(ours, executor=run_on_ray, actors=actors, min_actors=actors, threads=1)
            found[f"ours on Ray, {actors} actor(s)"] = way
    return found


def show(rates: dict[str, list[float]], stages: Counter[str]) -> None:
    base = statistics.median(rates[PLAIN])
    for name, values in rates.items():
        middle = statistics.median(values)
        spread = f"{min(values):.1f}..{max(values):.1f}"
        print(f"{name:30} median {middle:6.1f} ({spread})  ratio {middle / base:.2f}")
    parts = ", ".join(f"{name} {took / stages.total():.0%}" for name, took in stages.most_common())
    print(f"where our threads spend their time: {parts}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--repeat", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-ray", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    functions = ways(not options.without_ray)
    rates: dict[str, list[float]] = {name: [] for name in functions}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if options.images is None:
            collect(folder / "originals")
        found = sorted((options.images or folder / "originals").iterdir())
        originals = [path for path in found if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
        images = copies(originals, folder / "images", options.repeat)
        for _ in range(options.rounds):
            for name, function in functions.items():
                rates[name].append(timed(function, images, folder / "out"))
    print(
        f"{len(images)} images of {len(originals)} photographs, {os.cpu_count()} cores, images/s:"
    )
    show(rates, STAGES)


if __name__ == "__main__":
    main()
