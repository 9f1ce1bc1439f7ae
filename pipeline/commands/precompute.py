"""The command that encodes a dataset's samples ahead of training."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from rich.markup import escape

from pipeline.commands.options import (
    Actors,
    CpusPerActor,
    DatasetUri,
    Device,
    Local,
    SubsetName,
    Vae,
    check_here,
    execution_of,
)
from pipeline.errors import UsageError, in_flags
from pipeline.figures import human_bytes
from pipeline.terminal.console import out
from pipeline.terminal.quiet import quiet_libraries

if TYPE_CHECKING:
    from pipeline.precompute.encoder import Precompute

app = typer.Typer()


@app.command()
def precompute(
    dataset: DatasetUri,
    base: Annotated[
        str | None,
        typer.Option(help="Stable Diffusion or SDXL: folder or hub id; default the recipe's."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Of the base on the hub.")] = None,
    vae: Vae = None,
    local_files_only: Annotated[
        bool, typer.Option("--local-files-only", help="Never ask the hub.")
    ] = False,
    subset: SubsetName = None,
    precision: Annotated[str, typer.Option(help="Of the networks: fp32, fp16 or bf16.")] = "fp32",
    stored: Annotated[
        str, typer.Option(help="Of the numbers kept: fp16, or fp32 for the very same losses.")
    ] = "fp16",
    text: Annotated[bool, typer.Option(help="Captions' embeddings, too.")] = True,
    mirrored: Annotated[
        bool, typer.Option("--mirrored", help="Mirrored images, too, for training with --flip.")
    ] = False,
    device: Device = "cpu",
    batch_size: Annotated[int, typer.Option(help="Images at once; best that of the training.")] = 8,
    threads: Annotated[int, typer.Option(help="Threads that decode, in each worker.")] = 2,
    local: Local = False,
    actors: Actors = None,
    cpus_per_actor: CpusPerActor = None,
    gpus_per_actor: Annotated[
        float, typer.Option(help="GPUs, or a share of one, an actor on cuda.")
    ] = 1.0,
) -> None:
    """Encode images and captions beside the shards, once; `train` then leaves that out.

    Units that are encoded are not encoded again; `train` takes what fits its base by itself.
    """
    quiet_libraries()
    from catalog.dataset.dataset import Dataset
    from pipeline.precompute.precompute import precompute as run
    from pipeline.precompute.precompute import run_here
    from pipeline.recipe.made_by import base_of_recipe
    from pipeline.terminal.bars import encoding_bar

    execution = execution_of(
        {
            "device": device,
            "actors": actors,
            "cpus_per_actor": cpus_per_actor,
            "gpus_per_actor": gpus_per_actor,
        }
    )
    request = _request(
        dataset=dataset,
        base=base or base_of_recipe(Dataset.open(dataset)),
        revision=revision,
        vae=vae,
        local_files_only=local_files_only,
        precision=precision,
        stored=stored,
        text=text,
        mirrored=mirrored,
        device=device,
        batch_size=batch_size,
        threads=threads,
    )
    if local:
        check_here(device)
        executor = run_here
    else:
        from pipeline.precompute.on_ray import run_on_ray

        executor = partial(run_on_ray, execution=execution)
    with encoding_bar() as bar:
        made = run(request, executor=executor, subset=subset, progress=bar)
    if not made.units:
        out.print(f"nothing to do: {escape(made.folder)} is complete")
    told = f"{made.images:,} samples in {made.units_done:,} units, {human_bytes(made.bytes)}"
    out.print(f"encoded: {told}, in {escape(made.folder)}")


def _request(**fields: object) -> "Precompute":
    from pipeline.precompute.encoder import Precompute

    try:
        return Precompute.model_validate(fields)
    except ValidationError as error:
        raise UsageError(in_flags(error)) from error
