"""Commands for those who run builds: is all ready, and what can go."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from catalog.dataset.dataset import Dataset
from pipeline.commands.options import DatasetUri, Device, Json
from pipeline.errors import Exit
from pipeline.figures import human_bytes
from pipeline.terminal.console import out, show_json

app = typer.Typer()

_STYLES = {"ok": "green", "warning": "yellow", "fault": "bold red"}


@app.command()
def doctor(
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="Its checkpoints must be there: a file or a shipped one. Repeatable."),
    ] = None,
    out_: Annotated[
        str | None, typer.Option("--out", metavar="DATASET", help="Try whether it can be written.")
    ] = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Check versions, GPUs, weights, storage, memory and disk, on every node of RAY_ADDRESS.

    Each line is ok, a warning or a fault, with what to do about it; exit code 1 at any fault.
    """
    from pipeline.cluster.doctor import Question, diagnose

    found = diagnose(Question(recipes=recipe or (), out=out_, device=device))
    faults = sum(check.level == "fault" for check in found)
    warnings = sum(check.level == "warning" for check in found)
    if json:
        checks = [asdict(check) for check in found]
        show_json({"warnings": warnings, "faults": faults, "checks": checks})
        raise typer.Exit(Exit.FAILED if faults else Exit.DONE)
    for check in found:
        level = f"[{_STYLES[check.level]}]{check.level:<8}[/]"
        out.print(f"{level} {escape(check.name)}: {escape(check.found)}")
        if check.remedy:
            out.print(f"         [dim]{escape(check.remedy)}[/]")
    out.print(f"{len(found)} checks, {warnings} warnings, {faults} faults")
    if faults:
        raise typer.Exit(Exit.FAILED)


@app.command()
def gc(
    dataset: DatasetUri,
    dry_run: Annotated[bool, typer.Option(help="List, and remove nothing.")] = False,
    older_than: Annotated[float, typer.Option(min=0, help="Hours; what is younger stays.")] = 1.0,
) -> None:
    """Remove what died builds left: temporary files, and shards that no commit names."""
    from pipeline.ledger import garbage

    opened, seconds = Dataset.open(dataset), older_than * 3600
    found = garbage.find(opened, older_than=seconds)
    gone = found if dry_run else garbage.remove(opened, found, older_than=seconds)
    files = size = 0
    for one in gone:
        about = f"{one.kind}, {human_bytes(one.bytes)}, {one.age / 3600:.1f} h old"
        out.print(f"{escape(one.name)}: {about}")
        files, size = files + 1, size + one.bytes
    verb = "would remove" if dry_run else "removed"
    out.print(f"{verb} {files:,} files, {human_bytes(size)}")
