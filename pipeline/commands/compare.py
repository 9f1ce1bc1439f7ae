"""The command that puts runs beside each other."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pipeline.terminal.console import out
from pipeline.terminal.quiet import quiet_libraries

if TYPE_CHECKING:
    from pipeline.compare.comparison import Comparison

app = typer.Typer()

Samples = Annotated[
    int, typer.Option(min=1, max=6, help="Held-out samples in the grid; runs keep six.")
]


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Folders of runs.")],
    out_: Annotated[Path, typer.Option("--out", help="Folder for table, plot and grid.")],
    samples: Samples = 6,
    dataset: Annotated[
        str | None, typer.Option(help="Where the runs' dataset lies now; default where it lay.")
    ] = None,
) -> None:
    """Compare runs that were probed on the same held-out samples: a table, a plot, a grid."""
    quiet_libraries()
    from pipeline.compare.runs import label_folders

    write_comparison(label_folders(runs), out_, samples, dataset)


def write_comparison(
    folders: dict[str, Path], folder: Path, samples: int, dataset: str | None
) -> None:
    """Compare runs, print the table and say what was written."""
    from pipeline.compare.compare import FILES, compare_runs

    show_comparison(compare_runs(folders, folder, dataset=dataset, samples=samples))
    out.print(f"written: {escape(str(folder))}: {', '.join(FILES)}")


def show_comparison(comparison: "Comparison") -> None:
    """Print the figures, a column a run: so they fit on a terminal."""
    columns = [comparison.header(), *(row.cells() for row in comparison.runs)]
    first, *others = zip(*columns, strict=True)
    table = Table(*map(escape, first))
    for row in others:
        table.add_row(*map(escape, row))
    out.print(table)
    for line in (comparison.about(), *comparison.notes):
        out.print(escape(line))
