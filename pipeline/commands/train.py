"""The command that trains."""

import subprocess
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from pipeline.commands.options import (
    Base,
    BatchSize,
    Condition,
    FromBase,
    HeldOut,
    LearningRate,
    Overrides,
    ProbeEvery,
    Runs,
    Seed,
    SnapshotName,
    Steps,
    SubsetName,
    TrainFile,
    Vae,
)
from pipeline.errors import UsageError
from pipeline.terminal.console import err, out
from pipeline.terminal.quiet import quiet_libraries

if TYPE_CHECKING:
    from training.run.loop import RunSummary
    from training.settings.config import TrainConfig
    from training.watch.signals import LossRecord

app = typer.Typer()


@app.command()
def train(
    dataset: Annotated[str | None, typer.Option(help="The dataset's folder or URI.")] = None,
    out_: Annotated[
        str | None, typer.Option("--out", help="The run's folder; again resumes it.")
    ] = None,
    config: TrainFile = None,
    overrides: Overrides = None,
    base: Base = None,
    condition: Condition = None,
    start_from: Annotated[
        str | None, typer.Option(help="A run whose ControlNet to go on from.")
    ] = None,
    runs: Runs = None,
    from_base: FromBase = False,
    subset: SubsetName = None,
    snapshot: SnapshotName = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    gradient_accumulation: Annotated[
        int | None, typer.Option(help="Micro-steps an optimizer step.")
    ] = None,
    phases: Annotated[
        str | None,
        typer.Option(help="What learns until when: mid_only:2000,full:converged,unlocked."),
    ] = None,
    method: Annotated[str | None, typer.Option(help="controlnet, or the concat baseline.")] = None,
    hint_encoder: Annotated[str | None, typer.Option(help="released or paper.")] = None,
    learning_rate: LearningRate = None,
    schedule: Annotated[str | None, typer.Option(help="constant or cosine.")] = None,
    warmup: Annotated[int | None, typer.Option(help="Steps over which the rate rises.")] = None,
    max_grad_norm: Annotated[
        float | None, typer.Option(help="Gradients are scaled down to it; 0 for none.")
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw, adamw_fused or adamw_8bit.")] = None,
    ema: Annotated[float | None, typer.Option(help="Decay a step of averaged weights.")] = None,
    gradient_checkpointing: Annotated[
        bool | None, typer.Option("--gradient-checkpointing", help="Less memory, more time.")
    ] = None,
    prompt_dropout: Annotated[
        float | None, typer.Option(help="Share of prompts made empty.")
    ] = None,
    crop: Annotated[int | None, typer.Option(help="Side of a random square; pixels.")] = None,
    flip: Annotated[bool | None, typer.Option("--flip", help="Mirror half of the samples.")] = None,
    held_out: HeldOut = None,
    probe_every: ProbeEvery = None,
    seed: Seed = None,
    num_workers: Annotated[int | None, typer.Option(help="Loader processes.")] = None,
    cache: Annotated[
        str | None, typer.Option(help="Local folder that keeps what is read of a remote dataset.")
    ] = None,
    latents: Annotated[
        str | None, typer.Option(help="What precompute made: auto, never or always.")
    ] = None,
    wandb: Annotated[
        str | None, typer.Option(help="Project of Weights & Biases that mirrors TensorBoard.")
    ] = None,
    mixed_precision: Annotated[str | None, typer.Option(help="no, fp16 or bf16.")] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    keep_last: Annotated[
        int | None, typer.Option(help="Checkpoints kept, with the best; default all.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Of the base on the hub.")] = None,
    vae: Vae = None,
    local_files_only: Annotated[
        bool | None, typer.Option("--local-files-only", help="Never ask the hub.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="Processes, one a GPU, by accelerate launch.")
    ] = None,
    ray_workers: Annotated[
        int | None, typer.Option(min=1, help="Processes on a Ray cluster, begun again if they die.")
    ] = None,
) -> None:
    """Train a ControlNet on a dataset's shards; the run's folder loads in plain diffusers."""
    given = dict(locals())
    if gpus is not None and ray_workers is not None:
        raise UsageError("--gpus and --ray-workers are two ways to train with several: give one")
    if gpus is not None:
        _launch(gpus)
        return
    from pipeline.commands.train_settings import parse_phases, settings_of
    from training.settings.config import TrainConfig

    flags = {
        name: value
        for name, value in given.items()
        if name in TrainConfig.model_fields and value is not None
    }
    if out_ is not None:
        flags["out"] = out_
    if phases is not None:
        flags["phases"] = parse_phases(phases)
    made = settings_of(flags, config, overrides or [], runs=runs, from_base=from_base)
    if ray_workers is not None:
        _run_on_ray(made, ray_workers)
    else:
        run_training(for_device(made))


def run_training(config: "TrainConfig") -> None:
    """Train, or go on with the run that is there, with the detector of its condition; say so."""
    quiet_libraries()
    from catalog.dataset.dataset import Dataset
    from pipeline.recipe.made_by import condition_spec
    from training.run.loop import train as run

    spec = condition_spec(Dataset.open(config.dataset), config.condition)
    _show(config, run(config, spec=spec))


def _show(config: "TrainConfig", result: "RunSummary") -> None:
    from training.run.damage import FILE as DAMAGED

    done = f"{result.steps} steps"
    if not result.steps_done:
        out.print(f"nothing to do: {escape(config.out)} has its {done}")
    else:
        told = f"trained: {done} in {escape(config.out)}"
        if result.loss is not None:  # a run of few steps under Ray may have recorded none
            told += f", loss {result.loss:.4f}, {result.images_per_second:.2f} images/s"
        out.print(told)
    if result.damaged:
        file = escape(str(result.folder / DAMAGED))
        out.print(f"damaged samples that were passed over: {result.damaged}, see {file}")


def for_device(config: "TrainConfig") -> "TrainConfig":
    """Choose what nobody stated for a GPU, where there is one, and say so."""
    from training.run.device import for_device as choose

    config, chosen = choose(config)
    if chosen is not None:
        out.print(f"for this GPU: {chosen}")
    return config


def _run_on_ray(config: "TrainConfig", workers: int) -> None:
    quiet_libraries()
    from pipeline.retrain.on_ray import train_on_ray

    def show(record: "LossRecord") -> None:
        rate = f"{record.images_per_second:.2f} images/s"
        err.print(f"step {record.step} of {config.steps}: loss {record.loss:.4f}, {rate}")

    _show(config, train_on_ray(config, workers, progress=show))


def _launch(gpus: int) -> None:
    """Run this command again in a process a GPU, by accelerate.

    Raises:
        UsageError: there are not as many.
    """
    import torch

    if torch.cuda.device_count() < gpus:
        raise UsageError(f"--gpus {gpus}: this machine has {torch.cuda.device_count()}")
    arguments = sys.argv[1:]
    at = next(place for place, word in enumerate(arguments) if word.startswith("--gpus"))
    del arguments[at : at + (1 if "=" in arguments[at] else 2)]
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    launcher += ["--num_processes", str(gpus), "--module", "pipeline"]
    raise typer.Exit(subprocess.run([*launcher, *arguments], check=False).returncode)
