"""The sections of gpu.py, each run as ``python gpu_sections.py SECTION SETTINGS`` in its process.

A row is a line that begins with ROW, and JSON. Running out of a device's memory ends a sweep over
batches; a network that fails is a row, and the next one has its turn; anything else that goes wrong
ends the process, after the rows that it had.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

if sys.path[0] == str(Path(__file__).parent):
    sys.path.pop(0)  # there benchmarks would hide the packages of their names

import numpy as np
import torch

HERE = Path(__file__).parent
OUT_OF_MEMORY = "out of memory"  # as in gpu.py
PRECISIONS = ("fp32", "bf16")
SHAPES = 512, 128  # side of a picture in pixels: measured, quick

Settings = dict[str, Any]
Row = dict[str, Any]


def sibling(name: str) -> Any:
    """Import another benchmark by its file."""
    spec = spec_from_file_location(f"benchmark_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def rate_of(
    run: Callable[[], object], count: int, settings: Settings
) -> tuple[float, float | None]:
    """Return images a second of a call that handles `count`, and the device's peak in MiB.

    The first call warms up; then it is repeated for two seconds, five times at least. A quick look
    is one call.
    """
    cuda = settings["device"] == "cuda"
    if not settings["quick"]:
        run()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    done, least, begun = 0, 1 if settings["quick"] else 5, time.perf_counter()
    while done < least or (not settings["quick"] and time.perf_counter() - begun < 2):
        run()
        done += 1
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begun
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else None
    return count * done / seconds, peak


def sweep(
    what: str, precision: str, settings: Settings, run_of: Callable[[int], Callable[[], object]]
) -> Iterator[Row]:
    """Yield a row a batch size; the one that does not fit into memory is the last."""
    for batch in settings["batches"]:
        row = {"what": what, "how": f"{precision}, batch {batch}"}
        row["settings"] = {"precision": precision, "batch": batch}
        try:
            rate, peak = rate_of(run_of(batch), batch, settings)
        except torch.cuda.OutOfMemoryError:
            yield {**row, "error": OUT_OF_MEMORY}
            return
        yield {**row, "rate": rate, "memory": peak}


def card(settings: Settings) -> Iterator[Row]:
    """The rate of this one row is products of bf16 numbers a second, in 10^12."""
    cuda = settings["device"] == "cuda"
    size = 8192 if cuda else 512
    a = torch.randn(size, size, device=settings["device"], dtype=torch.bfloat16)
    rate, _ = rate_of(lambda: a @ a, 1, {**settings, "quick": False})  # a cold one is too low
    name = torch.cuda.get_device_name() if cuda else f"cpu, {os.cpu_count()} cores"
    memory = torch.cuda.get_device_properties(0).total_memory / 2**20 if cuda else None
    trillions = rate * 2 * size**3 / 1e12
    how = f"10^12 bf16 operations/s; torch {torch.__version__}"
    yield {"what": name, "how": how, "rate": trillions, "memory": memory}


def networks(settings: Settings) -> Iterator[Row]:
    stand_ins, peers = sibling("random_networks"), sibling("detectors")
    with tempfile.TemporaryDirectory() as scratch:
        for module in stand_ins.SPECS:
            kind = stand_ins.prepare(module, Path(scratch), peers, quick=settings["quick"])
            for precision in PRECISIONS[settings["quick"] :]:
                spec = stand_ins.SPECS[module]
                try:
                    for row in network(spec, precision, settings):
                        yield {**row, "weights": kind}
                except Exception as error:  # on this card, in this precision; not the others
                    what = {"what": spec.network.checkpoint, "how": precision, "weights": kind}
                    yield {**what, "error": f"{type(error).__name__}: {error}".splitlines()[0]}


def network(spec: Any, precision: str, settings: Settings) -> Iterator[Row]:
    from torch.utils.flop_counter import FlopCounterMode

    from detectors.graph import Graph

    side, work = SHAPES[settings["quick"]], 0.0

    def run_of(batch: int) -> Callable[[], object]:
        nonlocal work
        graph = Graph([spec], device=settings["device"], precision=precision, micro_batch=batch)
        if not work:
            with FlopCounterMode(display=False) as counter:
                graph.run(noise(1, side))
            work = counter.get_total_flops()
        images = noise(batch, side)
        return lambda: run_whole(graph, images)

    for row in sweep(spec.network.checkpoint, precision, settings, run_of):
        if "rate" in row and settings["peak"]:
            row["share"] = work * row["rate"] / (settings["peak"] * 1e12)
        yield row


def run_whole(graph: Any, images: list[np.ndarray]) -> None:
    """Run all images at once, or raise: a graph goes on in halves, and keeps what networks raise.

    Raises:
        OutOfMemoryError: the batch did not fit, though its halves may.
        Exception: what a network raised on an image.
    """
    batch = graph.micro_batch
    findings = graph.run(images)
    if graph.micro_batch < batch:
        raise torch.cuda.OutOfMemoryError
    for one in findings:
        for found in one.values():
            if isinstance(found, Exception):
                raise found


def captions(settings: Settings) -> Iterator[Row]:
    from captioning.blip_network import Blip
    from tests.random_blip import save_random_blip

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if settings["quick"]:
            save_random_blip(folder)
        else:
            sibling("captioning").save_model(folder)
        for precision in PRECISIONS:

            def run_of(batch: int, precision: Any = precision) -> Any:
                blip = Blip(folder, settings["device"], precision=precision, batch_size=batch)
                prepared = [blip.prepare(image) for image in noise(batch, 384)]
                return lambda: blip(prepared)

            for row in sweep("captions by blip", precision, settings, run_of):
                yield {**row, "weights": "random"}


def recipes(settings: Settings) -> Iterator[Row]:
    """Build by our own command: on Ray with a GPU, in one process for a quick look."""
    from detectors import weights
    from pipeline.recipe.recipe import load_recipe, shipped_recipes

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_pictures(folder / "pictures", settings["images"])
        for name in ("canny", *sorted(shipped_recipes())):
            networks = _networks_of(load_recipe, name)
            checkpoints = {one for network in networks for one in network.checkpoints}
            here = all(weights.where(one) is not None for one in checkpoints)
            if (name == "canny") != (not checkpoints) or not here or (folder / name).exists():
                continue
            line = [sys.executable, "-m", "pipeline", "build", name, "--out", str(folder / name)]
            line += ["--images", str(folder / "pictures"), "--device", settings["device"]]
            changes = ["captions.captioner=sidecar", "rules.min_chroma=0", "rules.min_sharpness=0"]
            changes += ["samples_per_unit=128"]
            if settings["quick"]:
                changes += ["image.resolution=64"]
                line += ["--local"]
            elif settings["device"] == "cuda":
                changes += ["preset=gpu"]
            recipe = load_recipe(name, changes)
            line += [word for change in changes for word in ("--set", change)]
            begun = time.perf_counter()
            done = subprocess.run(line, capture_output=True, text=True, check=False)
            rate = settings["images"] / (time.perf_counter() - begun)
            row = {"what": name, "how": f"{recipe.precision}, batch {recipe.batch_size}"}
            row["weights"] = "real" if checkpoints else ""
            failed = {"error": (done.stderr.strip().splitlines() or ["?"])[-1]}
            yield {**row, **({"rate": rate} if done.returncode == 0 else failed)}
            if settings["quick"]:
                return


def latents(settings: Settings) -> Iterator[Row]:
    from training.model.base import load_base
    from training.model.latents import image_moments, text_embeddings

    training = sibling("training")
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    side = 64 if settings["quick"] else SHAPES[0]
    with tempfile.TemporaryDirectory() as scratch:
        training.write_base(Path(scratch), gpu=not settings["quick"])
        for precision in PRECISIONS:
            base = load_base(scratch, dtype=dtypes[precision], encoders_only=True)
            for network in (base.vae, *base.text_encoders):
                network.to(settings["device"])

            def images_of(batch: int, base: Any = base) -> Any:
                pictures = noise(batch, side)
                return lambda: image_moments(base, pictures)

            def texts_of(batch: int, base: Any = base) -> Any:
                return lambda: text_embeddings(base, [f"picture {at}" for at in range(batch)])

            for what, run_of in (("autoencoder", images_of), ("text encoder", texts_of)):
                for row in sweep(what, precision, settings, run_of):
                    yield {**row, "weights": "random"}


def training(settings: Settings) -> Iterator[Row]:
    benchmark = sibling("training")
    gpu = settings["device"] == "cuda"
    rungs: dict[str, dict[str, Any]] = {
        "fp32": {"mixed_precision": "no"},
        "bf16": {"mixed_precision": "bf16"},
        "bf16, latents kept": {"mixed_precision": "bf16", "latents": "always"},
        "bf16, latents, mid_only": {
            "mixed_precision": "bf16",
            "latents": "always",
            "phases": [{"trains": "mid_only"}],
        },
        "bf16, latents, checkpointing": {
            "mixed_precision": "bf16",
            "latents": "always",
            "gradient_checkpointing": True,
        },
    }
    resolution = 64 if settings["quick"] else 512
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        benchmark.write_base(folder / "base", gpu=gpu)
        benchmark.write_samples(folder, resolution, 2 if settings["quick"] else 16)
        benchmark.factory(
            "precompute", str(folder / "shards"), "--base", str(folder / "base"),
            "--device", settings["device"], "--local",
        )  # fmt: skip
        for name, changes in list(rungs.items())[2:3] if settings["quick"] else rungs.items():
            for batch in (2,) if settings["quick"] else (4, 16, 32):
                setting = benchmark.Setting(
                    gpu=gpu,
                    resolution=resolution,
                    batch=batch,
                    steps=benchmark.WARM + (2 if settings["quick"] else 25),
                    workers=0 if settings["quick"] else 4,
                    threads=1,
                )
                shutil.rmtree(folder / "out", ignore_errors=True)
                found = benchmark.measure_ours(folder, setting, **changes)
                row = {"what": f"ControlNet, {name}", "how": f"batch {batch}", "weights": "random"}
                if found is None:
                    yield {**row, "error": OUT_OF_MEMORY}
                    break
                yield {**row, "rate": found.rate, "memory": found.memory}


def loader(settings: Settings) -> Iterator[Row]:
    from catalog.dataset.dataset import Dataset
    from training.data.examples import Examples
    from training.data.loader import IndexBatches, load_batches

    benchmark = sibling("training")
    side, batch = 64 if settings["quick"] else 512, 8
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        count = benchmark.write_samples(folder, side, 1 if settings["quick"] else 32)
        view = Dataset.open(str(folder / "shards")).view()
        examples = Examples(view, "canny", seed=0, prompt_dropout=0.5, multiple=8)
        stop = count // batch * batch * (1 if settings["quick"] else 8)
        for workers in (0,) if settings["quick"] else (0, 4, 16):
            begun = time.perf_counter()
            indices = IndexBatches(start=0, stop=stop, batch_size=batch)
            read = sum(
                len(one.keys)
                for one in load_batches(
                    examples, indices, workers=workers, pin_memory=settings["device"] == "cuda"
                )
            )
            rate = read / (time.perf_counter() - begun)
            yield {"what": "pairs", "how": f"{workers} workers, batch {batch}", "rate": rate}


def noise(count: int, side: int) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(count)]


def write_pictures(folder: Path, count: int) -> None:
    """Write so many photographs, copies of a few with other bytes."""
    from pipeline.demo.photographs import collect

    collect(folder.with_name("originals"))
    originals = [one for one in folder.with_name("originals").iterdir() if one.suffix != ".txt"]
    folder.mkdir()
    for number in range(count):
        path = originals[number % len(originals)]
        data = path.read_bytes() + b"\n" + str(number).encode()
        (folder / f"{number:06d}{path.suffix}").write_bytes(data)


def _networks_of(load_recipe: Callable[[str], Any], name: str) -> tuple[Any, ...]:
    try:
        recipe = load_recipe(name)
    except ValueError:
        return ()
    return () if recipe.labels is not None else recipe.networks


SECTIONS = {
    "card": card,
    "networks": networks,
    "captions": captions,
    "recipes": recipes,
    "latents": latents,
    "training": training,
    "loader": loader,
}


def main() -> None:
    warnings.simplefilter("ignore")  # importing controlnet_aux gives two dozen
    section, told = sys.argv[1:]
    for row in SECTIONS[section](json.loads(told)):
        print(f"ROW {json.dumps(row)}", flush=True)


if __name__ == "__main__":
    main()
