"""The command that hands a trained network on."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipeline.figures import human_bytes
from pipeline.terminal.console import out
from pipeline.terminal.quiet import quiet_libraries

app = typer.Typer()


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="The run's folder, or one of its checkpoints.")],
    out_: Annotated[Path, typer.Option("--out", help="A new folder.")],
    dataset: Annotated[
        str | None, typer.Option(help="Where the run's dataset lies now; default where it lay.")
    ] = None,
) -> None:
    """Write a trained network with its model card into a folder that plain diffusers loads.

    The folder can be given away as it is: `hf upload NAME FOLDER`.
    """
    quiet_libraries()
    from pipeline.export.export import export as write

    written = write(run, out_, dataset=dataset)
    size = human_bytes(sum(path.stat().st_size for path in written))
    names = ", ".join(str(path.relative_to(out_)) for path in written)
    out.print(f"written: {escape(str(out_))}, {size}: {escape(names)}")
