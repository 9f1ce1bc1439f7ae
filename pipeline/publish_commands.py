"""Commands for looking at a dataset, handing it on, and taking samples out of it."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from catalog import storage
from catalog.dataset import Dataset
from pipeline.console import human_bytes, out
from pipeline.options import DatasetUri

app = typer.Typer()


@app.command()
def report(
    dataset: DatasetUri,
    out_: Annotated[Path, typer.Option("--out", help="The HTML file to write.")] = Path(
        "report.html"
    ),
    samples: Annotated[
        int, typer.Option(min=0, max=100, help="On a contact sheet; 0 draws no pictures.")
    ] = 12,
) -> None:
    """Write one self-contained HTML file to look at: counts, rejects, distributions, pictures."""
    from pipeline.report.page import write_page

    start = time.perf_counter()
    data = write_page(Dataset.open(dataset), samples=samples).encode()
    storage.write_atomic(str(out_), data)
    seconds = time.perf_counter() - start
    out.print(f"written: {escape(str(out_))}, {human_bytes(len(data))}, in {seconds:.1f} s")
