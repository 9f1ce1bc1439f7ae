"""Commands that look at single images."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipeline.commands.options import LARGEST_SEED, DeviceHere
from pipeline.terminal.console import err, out

app = typer.Typer()


@app.command()
def annotate(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE_OR_FOLDER...")],
    out_: Annotated[Path, typer.Option("--out", help="Folder for the maps.")],
    conditions: Annotated[str, typer.Option(help="Detectors, for example canny,hed,scribble.")],
    sheet: Annotated[Path | None, typer.Option(help="A PNG with all maps side by side.")] = None,
    resolution: Annotated[int, typer.Option(min=64, max=2048, help="Short side; pixels.")] = 512,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of every random draw.")] = 0,
    device: DeviceHere = "cpu",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="DETECTOR.FIELD=VALUE", help="For example hed.safe=true."),
    ] = None,
) -> None:
    """Make condition maps of a few images, and a labelled sheet to look at."""
    from detectors.graph import Graph
    from pipeline.sheet.sheet import annotate_images, specs_of, write_sheet

    names = [name.strip() for name in conditions.split(",") if name.strip()]
    specs = specs_of(names, overrides or ())
    graph = Graph(specs, device=device)
    found = annotate_images(images, specs, out_, resolution=resolution, seed=seed, graph=graph)
    rows = []
    for row in found:
        out.print(f"{escape(row.name)}: {escape(', '.join(row.maps)) or 'no map'}")
        for condition, note in row.notes.items():
            if condition not in row.maps:
                err.print(f"{escape(row.name)}: {escape(condition)}: {escape(note)}")
        rows.append(row)
    if sheet is not None:
        write_sheet(sheet, rows, specs)
        out.print(f"written: {escape(str(sheet))}")
