"""Training speed and memory: ours beside diffusers' own script, and what a ControlNet costs a step.

    python benchmarks/training.py --diffusers CHECKOUT [--steps 30] [--batch 4] [--rounds 3]
    python benchmarks/training.py --diffusers CHECKOUT --gpu [--batch 1 4 8 16 32]

CHECKOUT is a copy of diffusers' repository. Its examples/controlnet/train_controlnet.py runs as it
is; where it logs a step, a clock is read. Without it, only ours is measured.
Both train the same base with random weights on the same samples, the encoded files of one dataset:
ours reads its shards, diffusers' script a parquet file with the same bytes. Ours is measured as the
script trains, with autoencoder and text encoder in each step, and on what `precompute` made of the
samples. Each way is a process of its own (training_way.py), and the ways take turns; the first
steps are left out of the rates.
Where other work shares the processor, its time an image is the fairer figure.
The second table is of a step alone, without reading, autoencoder and text encoder: fine-tuning the
UNet, a ControlNet, and a ControlNet on the middle block only. The paper gives +34% time and +23%
memory for the second over the first, and a factor of 1.6 for the third (3.2, 3.4).
On the CPU the base is tiny, the second table's UNet a fifth of Stable Diffusion's width, all in
fp32, and memory is the process's; with --gpu they are of SD 1.5's size, 512 px, in bf16, and memory
is what torch allocates on the device.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if sys.path[0] == str(Path(__file__).parent):
    sys.path.pop(0)  # there benchmarks would hide the packages of their names

import datasets
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from catalog.dataset.dataset import Dataset
from catalog.sample import Sample
from pipeline.demo.photographs import collect
from tests.random_base import write_random_base

SCRIPT = Path("examples/controlnet/train_controlnet.py")
NO_CHECKOUT = (
    "diffusers' script is left out: --diffusers CHECKOUT names a copy of its repository,\n"
    "git clone --depth 1 https://github.com/huggingface/diffusers CHECKOUT"
)
PEER, OURS, CACHED = "diffusers' script", "ours", "ours, precomputed"
STEPS = {"fine-tuned UNet": "unet", "ControlNet": "full", "ControlNet, mid_only": "mid_only"}
TEXT = 768
WARM = 5
WAY = Path(__file__).with_name("training_way.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all ways of a table have in common.

    Attributes:
        gpu: SD 1.5's size and bf16 on the GPU; else tiny, in fp32, on the CPU.
        resolution: side of the pictures, in pixels.
        batch: samples a step.
        steps: optimizer steps; `WARM` of them are not timed.
        workers: what reads beside the training, for both.
        threads: inside torch, on the CPU.
    """

    gpu: bool
    resolution: int
    batch: int
    steps: int
    workers: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a process found.

    Attributes:
        rate: images a second.
        cpu: time of the processor that an image takes, in all threads of the process, ms.
        memory: its peak, MiB.
    """

    rate: float
    cpu: float
    memory: float


def measure(
    way: str, settings: dict[str, Any], setting: Setting, *, own: bool = False
) -> Measured | None:
    """Return what a way does in a process of its own, or None where the GPU's memory is too small.

    Args:
        way: of training_way.py.
        settings: for it.
        setting: what all ways have in common.
        own: count only the memory above that of Python and the libraries.
    """
    task = json.dumps({"way": way, "settings": settings})
    ended = subprocess.run(
        [sys.executable, str(WAY), task],
        env={
            **os.environ,
            "OMP_NUM_THREADS": str(setting.threads),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            **({} if setting.gpu else {"CUDA_VISIBLE_DEVICES": ""}),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        if "OutOfMemoryError" in ended.stderr:
            return None
        raise SystemExit(f"{way} failed:\n{ended.stderr[-4000:]}")
    found = json.loads(ended.stdout.splitlines()[-1])
    times = found["times"]
    assert len(times) == setting.steps, f"{way}: {len(times)} steps of {setting.steps}"
    images = setting.batch * (len(times) - 1 - WARM)
    wall, cpu = (clock[-1] - clock[WARM] for clock in (times, found["cpu_times"]))
    memory = found["peak"] - found["before"] * own
    return Measured(rate=images / wall, cpu=1000 * cpu / images, memory=memory)


def write_base(folder: Path, *, gpu: bool) -> None:
    """Write a base with random weights: tiny, or of SD 1.5's size."""
    write_random_base(str(folder))
    if not gpu:
        return
    unet = UNet2DConditionModel(cross_attention_dim=TEXT)  # diffusers' defaults are SD 1.5's
    unet.save_pretrained(folder / "unet")
    vae = AutoencoderKL.load_config(folder / "vae")
    wide = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
    AutoencoderKL.from_config({**vae, **wide, "norm_num_groups": 32}).save_pretrained(
        folder / "vae"
    )
    text = CLIPTextConfig.from_pretrained(folder / "text_encoder")
    text.update({"hidden_size": TEXT, "intermediate_size": 4 * TEXT})
    text.update({"num_hidden_layers": 12, "num_attention_heads": 12})
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")


def write_samples(folder: Path, resolution: int, repeat: int) -> int:
    """Write shards with Canny maps, and the same bytes as parquet; return how many samples."""
    collect(folder / "photographs")
    (folder / "images").mkdir()
    for path in (folder / "photographs").iterdir():
        for number in range(repeat):  # a copy with other bytes counts as another picture
            more = b"" if path.suffix == ".txt" else b"\n" + str(number).encode()
            target = folder / "images" / f"{path.stem}-{number:03d}{path.suffix}"
            target.write_bytes(path.read_bytes() + more)
    images, shards = str(folder / "images"), str(folder / "shards")
    size = f"image.resolution={resolution}"
    factory(
        "build",
        "canny",
        images,
        "--out",
        shards,
        "--set",
        size,
        "--set",
        "captions.captioner=sidecar",
        "--local",
    )
    view = Dataset.open(shards).view()
    write_parquet(folder / "parquet", [view.read(row) for row in range(len(view))])
    return len(view)


def factory(*arguments: str) -> None:
    """Run our command line."""
    command = [sys.executable, "-m", "pipeline", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def write_parquet(folder: Path, samples: list[Sample]) -> None:
    picture = datasets.Image()
    features = {"image": picture, "conditioning_image": picture, "text": datasets.Value("string")}
    maps = [sample.conditions["canny"] for sample in samples]
    columns = {
        "image": [{"bytes": sample.image, "path": None} for sample in samples],
        "conditioning_image": [{"bytes": data, "path": None} for data in maps],
        "text": [sample.caption for sample in samples],
    }
    folder.mkdir()
    datasets.disable_progress_bars()
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    table.to_parquet(str(folder / "train.parquet"))


def measure_script(folder: Path, script: Path, setting: Setting) -> Measured | None:
    options = {
        "pretrained_model_name_or_path": folder / "base",
        "train_data_dir": folder / "parquet",
        "cache_dir": folder / "cache",
        "output_dir": folder / "out",
        "resolution": setting.resolution,
        "train_batch_size": setting.batch,
        "max_train_steps": setting.steps,
        "checkpointing_steps": setting.steps + 1,
        "dataloader_num_workers": setting.workers,
        "proportion_empty_prompts": 0.5,
        "learning_rate": 1e-5,
        "mixed_precision": "bf16" if setting.gpu else "no",
        "seed": 0,
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return measure("script", {"script": str(script), "arguments": arguments}, setting)


def measure_ours(folder: Path, setting: Setting, **changes: Any) -> Measured | None:
    """Measure our training; `changes` are settings of `training.settings.config.TrainConfig`."""
    settings = {
        "dataset": str(folder / "shards"),
        "condition": "canny",
        "base": str(folder / "base"),
        "out": str(folder / "out"),
        "batch_size": setting.batch,
        "steps": setting.steps,
        "num_workers": setting.workers,
        "mixed_precision": "bf16" if setting.gpu else "no",
        "held_out": 0,
        "probe_every": 0,
        "latents": "never",
        **changes,
    }
    return measure("ours", settings, setting)


def measure_steps(kind: str, setting: Setting) -> Measured | None:
    settings = {
        "kind": kind,
        "gpu": setting.gpu,
        "batch": setting.batch,
        "resolution": setting.resolution,
        "steps": setting.steps,
    }
    return measure("steps", settings, setting, own=True)


def take_turns(
    ways: dict[str, Callable[[], Measured | None]], rounds: int, out: Path
) -> dict[str, list[Measured | None]]:
    found: dict[str, list[Measured | None]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            shutil.rmtree(out, ignore_errors=True)
            found[name].append(way())
    return found


def rows_of(found: dict[str, list[Measured | None]]) -> Iterator[str]:
    """Yield a line a way: medians; each "to 1st" is the ratio to the first of them."""
    yield (
        f"{'':24}{'img/s':>8}{'(min..max)':>18}{'to 1st':>8}"
        f"{'cpu ms/img':>12}{'to 1st':>8}{'MiB':>9}{'to 1st':>8}"
    )
    first: Measured | None = None
    for name, measured in found.items():
        runs = [run for run in measured if run is not None]
        if len(runs) < len(measured):
            yield f"{name:24}{'out of memory':>26}"
            continue
        rates = [run.rate for run in runs]
        middle = Measured(
            rate=statistics.median(rates),
            cpu=statistics.median(run.cpu for run in runs),
            memory=statistics.median(run.memory for run in runs),
        )
        first = first or middle
        yield (
            f"{name:24}{middle.rate:8.2f}{f'({min(rates):.2f}..{max(rates):.2f})':>18}"
            f"{middle.rate / first.rate:7.2f}x{middle.cpu:12.1f}{middle.cpu / first.cpu:7.2f}x"
            f"{middle.memory:9,.0f}{middle.memory / first.memory:7.2f}x"
        )


def compare(folder: Path, script: Path | None, setting: Setting, rounds: int) -> None:
    ways = {}
    if script is not None:
        ways[PEER] = partial(measure_script, folder, script, setting)
    ways[OURS] = partial(measure_ours, folder, setting)
    ways[CACHED] = partial(measure_ours, folder, setting, latents="always")
    found = take_turns(ways, rounds, folder / "out")
    print(f"\ntraining, batch {setting.batch}")
    print("\n".join(rows_of(found)), flush=True)
    steps = {name: partial(measure_steps, kind, setting) for name, kind in STEPS.items()}
    print(f"\na step alone, batch {setting.batch}")
    print("\n".join(rows_of(take_turns(steps, rounds, folder / "out"))), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--diffusers", type=Path, help="a copy of diffusers' repository")
    parser.add_argument("--gpu", action="store_true", help="SD 1.5's size, 512 px, bf16")
    parser.add_argument("--batch", type=int, nargs="+", help="default 4; with --gpu 1 4 8 16 32")
    parser.add_argument("--resolution", type=int, help="pixels; default 128; with --gpu 512")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=16, help="copies of the 8 photographs")
    parser.add_argument("--workers", type=int, default=0, help="that read beside the training")
    parser.add_argument("--threads", type=int, default=1, help="inside torch, on the CPU")
    options = parser.parse_args()
    if options.steps < WARM + 2:
        parser.error(f"--steps must be at least {WARM + 2}: the first {WARM} are not timed")
    return options


def main() -> None:
    options = parse()
    script = options.diffusers and options.diffusers.resolve() / SCRIPT
    if script is None:
        print(NO_CHECKOUT)
    elif not script.is_file():
        raise SystemExit(f"{script} is not there\n{NO_CHECKOUT}")
    resolution = options.resolution or (512 if options.gpu else 128)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_base(folder / "base", gpu=options.gpu)
        samples = write_samples(folder, resolution, options.repeat)
        device = "cuda" if options.gpu else "cpu"
        at = ["--base", str(folder / "base"), "--device", device, "--local"]
        factory("precompute", str(folder / "shards"), *at)
        where = torch.cuda.get_device_name() if options.gpu else f"{os.cpu_count()} cores"
        print(
            f"{samples} samples of {resolution} x {resolution}, {where}, "
            f"{'SD 1.5 size, bf16' if options.gpu else 'tiny, fp32'}, {options.threads} thread(s), "
            f"{options.workers} worker(s), {options.steps} steps, median of {options.rounds}; "
            f"torch {torch.__version__}"
        )
        for batch in options.batch or ([1, 4, 8, 16, 32] if options.gpu else [4]):
            setting = Setting(
                gpu=options.gpu,
                resolution=resolution,
                batch=batch,
                steps=options.steps,
                workers=options.workers,
                threads=options.threads,
            )
            compare(folder, script, setting, options.rounds)


if __name__ == "__main__":
    main()
