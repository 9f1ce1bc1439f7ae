"""Loader speed and resume: ours beside webdataset and mosaicml-streaming on the same samples.

    python benchmarks/loader.py [--samples 2000] [--resolution 512] [--workers 0 2] [--rounds 3]

All read the same encoded pictures and maps of one dataset, and give batches of decoded uint8
tensors with captions: ours and webdataset read its shards, streaming an MDS folder with the same
bytes. Decoding is the same function for all. Ours shuffles all rows, webdataset 1,000 in a buffer,
streaming as it does by default (py1e). The ways take turns.

The second table resumes: how long it takes from opening the loader to the first batch behind
sample 0, and behind sample 2,900,000 of 3,000,000 - a dataset whose rows name the same samples
again and again. webdataset keeps no position: it reads what lies before, so its second figure is
what its rate above makes of 2.9M samples, not a measurement.

streaming is left out where it is not installed: pip install mosaicml-streaming.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

if sys.path[0] == str(Path(__file__).parent):
    sys.path.pop(0)  # there benchmarks would hide the packages of their names

import numpy as np
import pyarrow as pa
import torch
import webdataset
from PIL import Image

from catalog.dataset.dataset import Dataset, View
from catalog.images import decode_image
from training.data.examples import Examples
from training.data.loader import IndexBatches, load_batches
from training.data.pixels import stack

try:
    import streaming
except ImportError:
    streaming = None

BATCH = 8
ROWS = 3_000_000
BEHIND = 2_900_000
CONDITION = "canny"
OURS, WEBDATASET, STREAMING = "ours", "webdataset", "mosaicml-streaming"


def write_dataset(folder: Path, samples: int, resolution: int) -> Dataset:
    """Build a Canny dataset of smooth random pictures, and its MDS copy where streaming is here."""
    images = folder / "images"
    images.mkdir()
    generator = np.random.default_rng(0)
    side = resolution + 16
    for number in range(samples):
        coarse = generator.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        picture.save(images / f"{number:06d}.jpg", quality=92)
        (images / f"{number:06d}.txt").write_text(f"picture {number}")
    out = str(folder / "dataset")
    options = ["--set", f"image.resolution={resolution}", "--set", "rules.min_sharpness=0"]
    command = [sys.executable, "-m", "pipeline", "build", CONDITION, str(images), "--out", out]
    subprocess.run([*command, *options, "--local"], check=True, stdout=subprocess.DEVNULL)
    dataset = Dataset.open(out)
    if streaming is not None:
        write_mds(dataset.view(), folder / "mds")
    return dataset


def write_mds(view: View, folder: Path) -> None:
    columns = {"image": "bytes", "hint": "bytes", "caption": "str"}
    with streaming.MDSWriter(out=str(folder), columns=columns) as writer:
        for row in range(len(view)):
            sample = view.read(row)
            hint = sample.conditions[CONDITION]
            writer.write({"image": sample.image, "hint": hint, "caption": sample.caption})


def as_batch(rows: Iterable[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Decode and stack what the peers read, as our loader does."""
    found = list(rows)
    images, hints = (
        stack([decode_image(row[name]) for row in found]) for name in ("image", "hint")
    )
    return images, hints, [row["caption"] for row in found]


def ours(view: View, workers: int, start: int = 0) -> Iterator[Any]:
    examples = Examples(view, CONDITION, seed=0, prompt_dropout=0.5, multiple=8)
    stop = start + len(view) // BATCH * BATCH
    return load_batches(
        examples, IndexBatches(start=start, stop=stop, batch_size=BATCH), workers=workers
    )


def of_webdataset(shards: list[str], workers: int) -> Iterator[Any]:
    names = ("jpg", f"{CONDITION}.png", "txt")
    pipeline = (
        webdataset.WebDataset(shards, shardshuffle=True, seed=0, empty_check=False)
        .shuffle(1000)
        .to_tuple(*names)
        .map(lambda row: dict(zip(("image", "hint", "caption"), row, strict=True)))
        .map(lambda row: {**row, "caption": row["caption"].decode()})
        .batched(BATCH, collation_fn=as_batch)
    )
    return iter(webdataset.WebLoader(pipeline, batch_size=None, num_workers=workers))


def of_streaming(folder: Path, workers: int, *, repeat: float = 1, start: int = 0) -> Iterator[Any]:
    streaming.base.util.clean_stale_shared_memory()
    dataset = streaming.StreamingDataset(
        streams=[streaming.Stream(local=str(folder), repeat=repeat)],
        shuffle=True,
        batch_size=BATCH,
        num_canonical_nodes=1,
    )
    loader = streaming.StreamingDataLoader(
        dataset, batch_size=BATCH, num_workers=workers, collate_fn=as_batch
    )
    if start:
        state = dataset.state_dict(num_samples=start, from_beginning=True)
        loader.load_state_dict(state)
    return iter(loader)


def rate(open_: Callable[[], Iterator[Any]], samples: int) -> float:
    """Return samples a second over a pass, without the first four batches."""
    batches = open_()
    for _ in islice(batches, 4):
        pass
    begun = time.perf_counter()
    count = sum(len(batch_captions(batch)) for batch in islice(batches, samples // BATCH - 4))
    return count / (time.perf_counter() - begun)


def batch_captions(batch: Any) -> list[str]:
    captions: list[str] = batch[2] if isinstance(batch, tuple | list) else batch.captions
    return captions


def first_batch(open_: Callable[[], Iterator[Any]]) -> float:
    """Return the seconds from nothing to the first batch."""
    begun = time.perf_counter()
    next(open_())
    return time.perf_counter() - begun


def many_rows(view: View, rows: int) -> View:
    """Return a view of `rows` rows that names the samples of `view` again and again."""
    places = np.arange(rows, dtype=np.int64) % len(view)
    return View(view.dataset, "many", view.table.take(pa.array(places)))


def show_rates(
    ways: dict[str, Callable[[int], Iterator[Any]]], options: Any, samples: int
) -> float:
    """Print the table of rates; return webdataset's without workers."""
    slow = 0.0
    print(f"{'samples/s':24}" + "".join(f"{f'{count} workers':>26}" for count in options.workers))
    found: dict[str, dict[int, list[float]]] = {name: {} for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            for count in options.workers:
                found[name].setdefault(count, []).append(rate(partial(way, count), samples))
    for name, by_count in found.items():
        cells = []
        for count, rates in by_count.items():
            middle = statistics.median(rates)
            ratio = statistics.median(found[OURS][count]) / middle
            cells.append(f"{f'{middle:,.0f} ({min(rates):,.0f}..{max(rates):,.0f})':>19}")
            cells.append(f"{ratio:6.2f}x")
            if name == WEBDATASET and count == options.workers[0]:
                slow = middle
        print(f"{name:24}" + "".join(cells))
    print("(x: ours is so many times as fast)")
    return slow


def show_resume(view: View, mds: Path, webdataset_rate: float, rounds: int) -> None:
    many = many_rows(view, ROWS)
    ways: dict[str, dict[int, Callable[[], Iterator[Any]]]] = {
        OURS: {start: partial(ours, many, 0, start) for start in (0, BEHIND)}
    }
    if streaming is not None:
        repeat = ROWS / len(view)
        ways[STREAMING] = {
            start: partial(of_streaming, mds, 0, repeat=repeat, start=start)
            for start in (0, BEHIND)
        }
    print(f"\n{'seconds to first batch':24}{'at 0':>12}{f'at {BEHIND:,}':>18} of {ROWS:,}")
    for name, by_start in ways.items():
        times = [
            statistics.median(first_batch(way) for _ in range(rounds)) for way in by_start.values()
        ]
        print(f"{name:24}{times[0]:12.2f}{times[1]:18.2f}")
    print(f"{WEBDATASET:24}{'':12}{BEHIND / webdataset_rate:18,.0f}  (reads all before it)")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--resolution", type=int, default=512, help="pixels")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        dataset = write_dataset(folder, options.samples, options.resolution)
        view, mds = dataset.view(), folder / "mds"
        shards = sorted(str(path) for path in (folder / "dataset" / "shards").glob("*.tar"))
        ways: dict[str, Callable[[int], Iterator[Any]]] = {
            OURS: lambda count: ours(view, count),
            WEBDATASET: lambda count: of_webdataset(shards, count),
        }
        if streaming is None:
            print("mosaicml-streaming is not installed, and left out")
        else:
            ways[STREAMING] = lambda count: of_streaming(mds, count)
        print(
            f"{len(view)} samples of {options.resolution} x {options.resolution}, batches of "
            f"{BATCH}, {os.cpu_count()} cores, median of {options.rounds}; webdataset "
            f"{webdataset.__version__}, torch {torch.__version__}"
            + (f", streaming {streaming.__version__}" if streaming is not None else "")
        )
        slow = show_rates(ways, options, len(view))
        show_resume(view, mds, slow, options.rounds)
        shutil.rmtree(mds, ignore_errors=True)


if __name__ == "__main__":
    main()
