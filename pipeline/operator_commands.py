"""Commands for those who run builds: is all ready, and what can go."""

from typing import Annotated

import typer
from rich.markup import escape

from pipeline.console import out
from pipeline.errors import Exit, UsageError

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
    device: Annotated[str, typer.Option(help="Where networks shall run: cpu or cuda.")] = "cpu",
) -> None:
    """Check versions, GPUs, weights, storage, memory and disk, on every node of RAY_ADDRESS.

    Each line is ok, a warning or a fault, with what to do about it; exit code 1 at any fault.
    """
    from pipeline.doctor import Question, diagnose

    if device not in ("cpu", "cuda"):
        raise UsageError(f"--device {device!r} is unknown; expected cpu or cuda")
    found = diagnose(Question(recipes=recipe or (), out=out_, device=device))
    for check in found:
        level = f"[{_STYLES[check.level]}]{check.level:<8}[/]"
        out.print(f"{level} {escape(check.name)}: {escape(check.found)}")
        if check.remedy:
            out.print(f"         [dim]{escape(check.remedy)}[/]")
    faults = sum(check.level == "fault" for check in found)
    warnings = sum(check.level == "warning" for check in found)
    out.print(f"{len(found)} checks, {warnings} warnings, {faults} faults")
    if faults:
        raise typer.Exit(Exit.FAILED)
