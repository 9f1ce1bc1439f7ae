"""Commands for those who run builds: is all ready, and what can go."""

from dataclasses import asdict
from typing import Annotated, get_args

import typer
from rich.markup import escape

from catalog import storage
from catalog.dataset.dataset import Dataset
from pipeline.commands.options import (
    Actors,
    CaptionCache,
    DatasetUri,
    Device,
    GpusPerActor,
    Json,
    Local,
    LogFormatName,
    MaxFailedShare,
    MaxFailedShareOfAUnit,
    Threads,
    ThreadsOfNetworks,
    execution_of,
    is_elsewhere,
    one_of,
    unit_executor,
)
from pipeline.errors import Exit
from pipeline.figures import counted, human_bytes
from pipeline.recipe.execution import Execution
from pipeline.terminal import console
from pipeline.terminal.build_view import BuildView, LogFormat
from pipeline.terminal.console import err, out, show_json

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


@app.command("retry-failed")
def retry_failed(
    dataset: DatasetUri,
    local: Local = False,
    actors: Actors = None,
    gpus_per_actor: GpusPerActor = None,
    device: Device = "cpu",
    threads: Threads = None,
    network_threads: ThreadsOfNetworks = None,
    caption_cache: CaptionCache = None,
    max_failed_share_of_a_unit: MaxFailedShareOfAUnit = None,
    max_failed_share: MaxFailedShare = None,
    log_format: LogFormatName = "text",
) -> None:
    """Try images with a row failed:* again, as units of a new generation; again resumes.

    What is committed stays as it is. Images that were set aside for ending their process are looked
    at again, too. Subsets are cut again, as they were asked for.
    """
    from pipeline.ledger.retry import retry_failed as run

    given = {name: value for name, value in locals().items() if name in Execution.model_fields}
    execution = execution_of({name: value for name, value in given.items() if value is not None})
    with BuildView(one_of("--log-format", log_format, get_args(LogFormat))) as view:
        tried = run(
            dataset,
            execution,
            executor=unit_executor(local, execution.device),
            observer=view,
            captioner_elsewhere=is_elsewhere(local),
        )
    if tried.result is None:
        left = f"; {counted(tried.left)} when it was scanned" if tried.left else ""
        out.print(f"nothing to do: no image of {escape(dataset)} failed in a unit{escape(left)}")
        return
    left = counted(tried.left) or "none"
    out.print(f"tried again: {escape(counted(tried.planned))}; still failed: {escape(left)}")
    console.show_status(dataset, tried.result.status)
    _tell_of_views(dataset)
    if tried.result.failed_share > execution.max_failed_share:
        err.print(
            f"{tried.result.failed_share:.1%} of the images failed: rejects {escape(dataset)}"
        )
        raise typer.Exit(Exit.FAILURES)


def _tell_of_views(dataset: str) -> None:
    """Say what was made of the samples that there were before, and is to be made again."""
    from catalog.publish.card import README

    opened = Dataset.open(dataset)
    if subsets := opened.subsets():
        out.print(f"subsets, cut again where it was needed: {escape(', '.join(subsets))}")
    if storage.exists(opened.path(README)):
        out.print(f"the card lists the shards that there were: card {escape(dataset)}")
