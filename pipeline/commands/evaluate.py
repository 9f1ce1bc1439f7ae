"""The command that measures a trained run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer
from rich.markup import escape
from rich.table import Table

from pipeline.commands.options import LARGEST_SEED, DeviceHere, one_of
from pipeline.terminal.console import err, out
from pipeline.terminal.quiet import quiet_libraries

if TYPE_CHECKING:
    from training.measure.evaluation import Evaluation

app = typer.Typer()

Split = Literal["held-out", "all"]


@app.command()
def evaluate(
    run: Annotated[Path, typer.Option(help="The run's folder, or one of its checkpoints.")],
    dataset: Annotated[str, typer.Option(help="The dataset's folder or URI.")],
    split: Annotated[
        str, typer.Option(help="held-out: rows that the run did not train on; all: every row.")
    ] = "held-out",
    subset: Annotated[str | None, typer.Option(help="With --split all: only a subset.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="At most; the split's first ones.")] = 16,
    base: Annotated[str | None, typer.Option(help="Default: the base of the run.")] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="Of the first picture's noise.")
    ] = 0,
    steps: Annotated[int, typer.Option(min=1, max=999, help="DDIM steps.")] = 20,
    cfg: Annotated[float, typer.Option(min=0, help="Classifier-free guidance scale.")] = 9.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures made at once.")] = 8,
    clip: Annotated[
        str | None, typer.Option(help="For the CLIP score: a folder, or a hub id in the cache.")
    ] = None,
    device: DeviceHere = "cpu",
    precision: Annotated[
        str, typer.Option(help="Of what makes the pictures: fp32, fp16 or bf16.")
    ] = "fp32",
    local_files_only: Annotated[bool, typer.Option(help="Never ask the hub.")] = False,
    out_: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder; default RUN/evaluation, with the step of a checkpoint."
        ),
    ] = None,
) -> None:
    """Measure how well a run obeys its condition: a table as JSON and Markdown, and a grid."""
    quiet_libraries()
    from pipeline.evaluate.evaluate import Precision, Request, evaluate_run, evaluation_folder
    from training.measure.evaluation import write_evaluation

    request = Request(
        run=run,
        dataset=dataset,
        split=cast(Split, one_of("--split", split, ("held-out", "all"))),
        subset=subset,
        samples=samples,
        base=base,
        seed=seed,
        steps=steps,
        guidance_scale=cfg,
        batch_size=batch_size,
        clip=clip,
        device=device,
        precision=one_of("--precision", precision, get_args(Precision)),
        local_files_only=local_files_only,
    )
    evaluation, grid = evaluate_run(request)
    folder = out_ or evaluation_folder(run)
    write_evaluation(folder, evaluation, grid)
    _show(evaluation)
    out.print(f"written: {escape(str(folder))}: evaluation.json, evaluation.md, grid.png")


def _show(evaluation: "Evaluation") -> None:
    table = Table("pictures", evaluation.metric, "std", "normalised", "CLIP score", "FID")
    for row in evaluation.cells():
        table.add_row(*map(escape, row))
    out.print(table)
    for note in evaluation.notes:
        err.print(escape(note))
