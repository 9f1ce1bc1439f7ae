"""The command that shows the whole path."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from pipeline.terminal.console import out
from pipeline.terminal.quiet import quiet_libraries

if TYPE_CHECKING:
    from pipeline.demo.walk import Program

app = typer.Typer()


@app.command()
def demo(
    context: typer.Context,
    out_: Annotated[Path, typer.Option("--out", help="Folder for all that it makes.")] = Path(
        "demo"
    ),
    pictures: Annotated[int, typer.Option(min=40, help="Shapes to draw and train on.")] = 2000,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps; default those of the example.")
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="Without Ray.")] = False,
) -> None:
    """Walk the whole path on photographs and drawn shapes, in some fifteen minutes on a laptop.

    It runs commands of this program, and shows each: any of them can be run by itself.
    """
    quiet_libraries()
    from catalog.storage import write_atomic
    from pipeline.demo.page import write_page
    from pipeline.demo.photographs import collect, conditions_here, photograph_steps
    from pipeline.demo.shapes import shapes_steps
    from pipeline.demo.walk import Walk

    programs = {"controlnet-factory": _runner(context), "python": _run_python}
    walk = Walk(out_ / "steps.json", programs, lambda text: out.print(escape(text)))
    photographs, page = out_ / "photographs", out_ / "index.html"
    if not photographs.exists():
        out.print(f"photographs from scikit-image and matplotlib: {collect(photographs)}")
    here, missing = conditions_here()
    if missing:
        out.print(f"left out, not on this machine: {', '.join(missing)} (make weights)")
    first = photograph_steps(out_, here, local=local)
    second = shapes_steps(out_ / "shapes", pictures=pictures, steps=steps, local=local)
    for step in (*first, *second):
        walk.take(step)
    if walk.went_on or not page.exists():
        write_atomic(str(page), write_page(out_, first, second, walk.seconds).encode())
    out.print(f"""Look at:
   {escape(str(page))}  everything on one offline page
   {escape(str(out_ / "dataset"))}  shards (plain WebDataset tars), manifest, subset, commits
   {escape(str(out_ / "shapes" / "run"))}  the ControlNet; ControlNetModel.from_pretrained loads it
   Next: controlnet-factory build canny --images YOUR_FOLDER --out DATASET""")


def _runner(context: typer.Context) -> "Program":
    command = context.find_root().command

    def run(arguments: Sequence[str]) -> None:
        code = command.main(list(arguments), "controlnet-factory", standalone_mode=False)
        if code:
            raise typer.Exit(code)

    return run


def _run_python(arguments: Sequence[str]) -> None:
    code = subprocess.run([sys.executable, *arguments], check=False).returncode
    if code:
        raise typer.Exit(code)
