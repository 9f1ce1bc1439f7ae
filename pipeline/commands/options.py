"""Options that several commands share, and their validation."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from pipeline.errors import UsageError, in_flags
from pipeline.recipe.execution import Execution

if TYPE_CHECKING:
    from pipeline.build.build import Executor

T = TypeVar("T")

DEVICES = ("cpu", "cuda")
LARGEST_SEED = 2**63 - 1


def _known_device(device: str | None) -> str | None:
    if device is None or device in DEVICES:
        return device
    raise UsageError(f"--device {device!r} is unknown; expected {' or '.join(DEVICES)}")


def check_here(device: str) -> None:
    """Raise UsageError where torch finds no such device on this machine."""
    if device == "cpu":
        return
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # a build without CUDA asserts
        reason = str(error).partition("\n")[0]
        raise UsageError(f"--device {device} cannot be used: {reason}; try --device cpu") from error


def _device_here(device: str) -> str:
    _known_device(device)
    check_here(device)
    return device


Device = Annotated[
    str, typer.Option(help="Where networks run: cpu or cuda.", callback=_known_device)
]
DeviceHere = Annotated[
    str, typer.Option(help="Where networks run: cpu or cuda.", callback=_device_here)
]
DeviceOfRecipe = Annotated[
    str | None, typer.Option(help="Of networks: cpu (default), cuda.", callback=_known_device)
]
NetworkThreads = Annotated[int, typer.Option(help="Threads inside a network on the CPU.")]
DatasetUri = Annotated[str, typer.Argument(metavar="DATASET", help="The dataset's folder or URI.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")]
SubsetName = Annotated[str | None, typer.Option(help="A subset, for example 1k; default all.")]
SnapshotName = Annotated[
    str | None, typer.Option(help="A snapshot; default the dataset as it is now.")
]

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a field: detectors.0.low=80."),
]

# Of work on units, here or on Ray:
Local = Annotated[bool, typer.Option("--local", help="In this process, without Ray.")]
Actors = Annotated[int | None, typer.Option(help="Ray actors at most; default all that fit.")]
GpusPerActor = Annotated[
    float | None,
    typer.Option(help="GPUs, or a share of one, an actor on cuda; default by the CPUs beside it."),
]
CpusPerActor = Annotated[
    float | None, typer.Option(help="CPUs an actor; default 1, on cuda all beside its GPU.")
]
Threads = Annotated[
    int | None, typer.Option(help="Threads a worker; default one a CPU that it has.")
]
ThreadsOfNetworks = Annotated[
    int | None, typer.Option(help="Threads inside a network on the CPU; default 1.")
]
CaptionCache = Annotated[
    str | None,
    typer.Option(help="Generated captions; default: caption-cache beside the dataset."),
]
MaxFailedShareOfAUnit = Annotated[
    float | None, typer.Option(help="Share of a unit's images that may fail alike; default 0.5.")
]
MaxFailedShare = Annotated[
    float | None, typer.Option(help="Share of failed images that gives exit 3; default 0.01.")
]
LogFormatName = Annotated[str, typer.Option(help="text, or json: one object a line.")]

# Of bases:
Vae = Annotated[
    str | None, typer.Option(help="Autoencoder in place of the base's: folder or hub id.")
]

# Of trainings:
TrainFile = Annotated[
    Path | None, typer.Option(help="YAML with any of the settings; docs/training.md has all.")
]
Base = Annotated[
    str | None, typer.Option(help="Stable Diffusion: folder or hub id; default the recipe's.")
]
Condition = Annotated[
    str | None, typer.Option(help="Which of the dataset's conditions; default its only one.")
]
Runs = Annotated[
    Path | None,
    typer.Option(help="Folder of runs: that which the recipe starts from is there."),
]
FromBase = Annotated[
    bool, typer.Option("--from-base", help="Start from the base whatever the recipe says.")
]
Steps = Annotated[int | None, typer.Option(help="Optimizer steps.", show_default="10000")]
BatchSize = Annotated[int | None, typer.Option(help="Samples a process and micro-step.")]
LearningRate = Annotated[float | None, typer.Option(help="AdamW's; the paper's is 1e-5.")]
HeldOut = Annotated[
    int | None, typer.Option(help="Samples kept out, to measure on; default 16 or a tenth.")
]
ProbeEvery = Annotated[
    int | None, typer.Option(help="Steps between probes of adherence; 0 for none.")
]
Seed = Annotated[int | None, typer.Option(help="Of order, noise and dropout.")]


def unit_executor(local: bool, device: str) -> "Executor":
    """Return what runs units: this process, where it has the device, or Ray."""
    if local:
        check_here(device)
        from pipeline.build.local import run_local

        return run_local
    from pipeline.build.on_ray import run_on_ray

    return run_on_ray


def is_elsewhere(local: bool) -> bool:
    """Say whether other machines than this one work on units."""
    return not local and "RAY_ADDRESS" in os.environ


def execution_of(fields: dict[str, Any]) -> Execution:
    """Return an Execution; raises UsageError in terms of the flags."""
    try:
        return Execution.model_validate(fields)
    except ValidationError as error:
        raise UsageError(in_flags(error)) from error


def one_of(flag: str, name: str, known: tuple[T, ...]) -> T:
    """Return the value that a flag names; raises UsageError where it is none of `known`."""
    for value in known:
        if value == name:
            return value
    raise UsageError(f"{flag} {name!r} is unknown; expected one of {', '.join(map(str, known))}")
