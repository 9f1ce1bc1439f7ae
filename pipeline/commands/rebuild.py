"""The commands of a schedule: a night of rebuilding and training, and what is current."""

import os
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.markup import escape
from rich.table import Table

from pipeline.commands.options import (
    Json,
    Local,
    LogFormatName,
    is_elsewhere,
    one_of,
    unit_executor,
)
from pipeline.errors import Exit, UsageError
from pipeline.retrain.journal import Outcome
from pipeline.terminal.build_view import BuildView, LogFormat
from pipeline.terminal.console import err, out, show_json
from pipeline.terminal.quiet import quiet_libraries

if TYPE_CHECKING:
    from pipeline.retrain.night import Means
    from pipeline.retrain.nightly import Nightly
    from pipeline.retrain.training import Trainer

app = typer.Typer()

ConfigFile = Annotated[
    Path, typer.Option("--config", help="YAML that says what a night does; docs/nightly.md.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a field: train.steps=2000."),
]


@app.command()
def rebuild(
    config: ConfigFile,
    overrides: Overrides = None,
    run_id: Annotated[
        str | None,
        typer.Option(help="Of the night; default the one that did not end, else today's date."),
    ] = None,
    local: Local = False,
    log_format: LogFormatName = "text",
) -> None:
    """Do a night's work: look at the source, build, train, measure, and promote what is no worse.

    The same command goes on with a night that was stopped, and does nothing for one that has ended.
    The last line of the output is the night's summary, in JSON. Exit code 3: the gate refused it.
    """
    quiet_libraries()
    from pipeline.recipe.recipe import load_recipe
    from pipeline.retrain.afterwards import finish_off
    from pipeline.retrain.journal import unfinished
    from pipeline.retrain.night import run_night

    made = _load(config, overrides)
    recipe = load_recipe(made.recipe, made.overrides)
    night = run_id or unfinished(made.folder) or datetime.now(UTC).strftime("%Y-%m-%d")
    with BuildView(one_of("--log-format", log_format, get_args(LogFormat))) as view:
        means = _means(made, view, local=local)
        ended = run_night(made, recipe, night, means, owner=f"rebuild, process {os.getpid()}")
    for line in finish_off(made, ended):
        err.print(escape(line))
    err.print(escape(f"night {night}: {ended.outcome}. {ended.sentence}"))
    show_json(ended.summary())
    if ended.outcome == Outcome.REFUSED:
        raise typer.Exit(Exit.FAILURES)


@app.command()
def rollback(
    config: ConfigFile,
    to: Annotated[int, typer.Option("--to", min=1, help="Number of an earlier promotion.")],
    overrides: Overrides = None,
) -> None:
    """Make an earlier promotion current again; nothing is deleted."""
    from pipeline.retrain.rollback import roll_back_to

    made = _load(config, overrides)
    record = roll_back_to(made, to, owner=f"rollback, process {os.getpid()}")
    out.print(f"current: night {escape(record.night)}, promotion {record.number} ({record.why})")


@app.command()
def nights(config: ConfigFile, overrides: Overrides = None, json: Json = False) -> None:
    """List what was promoted, the newest last, and say which night is current or did not end."""
    from pipeline.retrain.journal import unfinished
    from pipeline.retrain.promotions import history

    made = _load(config, overrides)
    records, open_night = history(made.folder), unfinished(made.folder)
    if json:
        show_json({"promotions": [asdict(one) for one in records], "unfinished": open_night})
        return
    table = Table("promotion", "night", "samples", "adherence", "why", "at")
    for one in records:
        gate = one.figures.get("gate", {}).get("candidate", {})
        mean = gate.get("adherence_mean")
        samples = f"{gate.get('samples', 0):,}"
        shown = (str(one.number), one.night, samples, "" if mean is None else f"{mean:.3f}")
        table.add_row(*map(escape, (*shown, one.why, one.at)))
    out.print(table)
    if open_night:
        out.print(f"not ended: night {escape(open_night)}; rebuild goes on with it")


def _load(config: Path, overrides: list[str] | None) -> "Nightly":
    from pipeline.recipe.yaml_file import load_model
    from pipeline.retrain.nightly import Nightly

    try:
        text = config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {config} cannot be read: {error}") from error
    return load_model(Nightly, text, name=str(config), overrides=overrides or [])


def _means(config: "Nightly", view: BuildView, *, local: bool) -> "Means":
    from pipeline.retrain.night import Means

    if local:
        from pipeline.scan.chunks import scan_here as scanner
    else:
        from pipeline.scan.on_ray import scan_on_ray as scanner
    trainer = None if config.train is None else _trainer(config, local=local)
    return Means(
        executor=unit_executor(local, config.execution.device),
        scanner=scanner,
        observer=view,
        trainer=trainer,
        captioner_elsewhere=is_elsewhere(local),
        told=lambda stage: err.print(f"stage: {escape(stage)}"),
    )


def _trainer(config: "Nightly", *, local: bool) -> "Trainer":
    from pipeline.commands.train_settings import settings_of
    from pipeline.retrain.training import Trainer

    if local:
        from pipeline.precompute.precompute import run_here

        encoder = run_here
    else:
        from pipeline.precompute.on_ray import run_on_ray

        encoder = partial(run_on_ray, execution=config.execution)
    return Trainer(config, lambda stated: settings_of(stated, None, []), encoder)
