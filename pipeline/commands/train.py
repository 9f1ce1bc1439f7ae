"""Commands that train, and the demonstration."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.markup import escape

from catalog.dataset.dataset import Dataset
from pipeline.commands.options import SubsetName
from pipeline.errors import UsageError, in_flags
from pipeline.terminal.console import err, out
from pipeline.terminal.quiet import quiet_libraries

app = typer.Typer()


@app.command()
def train(
    dataset: Annotated[str, typer.Option(help="The dataset's folder or URI.")],
    out_: Annotated[str, typer.Option("--out", help="The run's folder; again resumes it.")],
    base: Annotated[
        str | None, typer.Option(help="Stable Diffusion: folder or hub id; default the recipe's.")
    ] = None,
    condition: Annotated[
        str | None, typer.Option(help="Which of the dataset's conditions; default its only one.")
    ] = None,
    start_from: Annotated[
        str | None, typer.Option(help="A run whose ControlNet to go on from, as recipes may ask.")
    ] = None,
    subset: SubsetName = None,
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = 10_000,
    batch_size: Annotated[int, typer.Option(help="Samples a process and micro-step.")] = 4,
    gradient_accumulation: Annotated[int, typer.Option(help="Micro-steps an optimizer step.")] = 1,
    learning_rate: Annotated[float, typer.Option(help="AdamW's; the paper's is 1e-5.")] = 1e-5,
    prompt_dropout: Annotated[float, typer.Option(help="Share of prompts made empty.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Of order, noise and dropout.")] = 0,
    num_workers: Annotated[int, typer.Option(help="Loader processes.")] = 0,
    mixed_precision: Annotated[str, typer.Option(help="no, fp16 or bf16.")] = "no",
    checkpoint_every: Annotated[int, typer.Option(help="Optimizer steps.")] = 1000,
    revision: Annotated[str | None, typer.Option(help="Of the base on the hub.")] = None,
    local_files_only: Annotated[bool, typer.Option(help="Never ask the hub.")] = False,
) -> None:
    """Train a ControlNet on a dataset's shards; the run's folder loads in plain diffusers."""
    from training.settings.config import TrainConfig

    fields = {name: value for name, value in locals().items() if name in TrainConfig.model_fields}
    try:
        config = TrainConfig(**fields | _defaults(dataset, base, condition, start_from), out=out_)
    except ValidationError as error:
        raise UsageError(in_flags(error)) from error
    quiet_libraries()
    from training.run.loop import train as run

    result = run(config)
    done = f"{result.steps} steps"
    if not result.steps_done:
        out.print(f"nothing to do: {escape(out_)} has its {done}")
    else:
        speed = f"loss {result.loss:.4f}, {result.images_per_second:.2f} images/s"
        out.print(f"trained: {done} in {escape(out_)}, {speed}")


def _defaults(
    dataset: str, base: str | None, condition: str | None, start_from: str | None
) -> dict[str, str]:
    """Fill in what was not asked for from the recipe that the dataset was made by."""
    recipe = Dataset.open(dataset).recipe
    training = recipe.get("training") or {}
    base = base or training.get("base")
    if base is None:
        raise UsageError(f"the recipe of {dataset} names no base model: give one with --base")
    conditions = [spec["condition"] for spec in recipe["detectors"]]
    if condition is None and len(conditions) > 1:
        raise UsageError(f"{dataset} has several conditions: --condition {'|'.join(conditions)}")
    if start_from is None and training.get("start"):
        err.print(
            f"the paper starts this from a ControlNet trained on {escape(training['start'])}: "
            "--start-from RUN; going on from the base alone"
        )
    return {"base": base, "condition": condition or conditions[0]}


@app.command()
def demo(
    out_: Annotated[Path, typer.Option("--out", help="Folder for all that it makes.")] = Path(
        "demo"
    ),
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 40,
    local: Annotated[bool, typer.Option("--local", help="Without Ray.")] = False,
) -> None:
    """Walk the whole path on real photographs, in a few minutes on a laptop."""
    quiet_libraries()
    from pipeline.commands.demo import run_demo

    run_demo(out_, steps=steps, local=local)
