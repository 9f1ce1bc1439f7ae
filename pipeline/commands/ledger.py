"""Commands that ask the ledger: why images were rejected, and what other rules would do."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
import typer
import yaml
from rich.markup import escape

from catalog import storage
from catalog.dataset.dataset import REJECTS, Dataset
from catalog.errors import DatasetError
from pipeline.commands.options import DatasetUri
from pipeline.errors import UsageError
from pipeline.terminal.console import err, out

app = typer.Typer()


@app.command()
def rejects(
    dataset: DatasetUri,
    by: Annotated[
        str | None, typer.Option(help="rule: count by rule, with the values measured (default).")
    ] = None,
    rule: Annotated[
        str | None, typer.Option(help="Show the images of one rule, for example blur.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to show.")] = 20,
) -> None:
    """Say why images gave no sample: rule, value, threshold."""
    if by not in (None, "rule"):
        raise UsageError(f"--by {by!r} is unknown; expected rule")
    opened = Dataset.open(dataset)
    uri = opened.path(REJECTS)
    if not storage.exists(uri):
        raise DatasetError(f"{dataset} is not finished: run its build command again")
    table = opened.rejects()
    if rule is None:
        _show_counts(table)
    else:
        _show_images(table, rule, limit)


@app.command()
def requery(
    dataset: DatasetUri,
    overrides: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY.PATH=VALUE",
            help="A rule or threshold: rules.min_chroma=5, rules.keypoints.fraction=0.5.",
        ),
    ],
    save: Annotated[
        str | None, typer.Option(help="Write the changed recipe here, to build with.")
    ] = None,
) -> None:
    """Say what other rules would keep, from the ledger alone; no image is read."""
    from pipeline.ledger.requery import changed_recipe
    from pipeline.ledger.requery import requery as run

    opened = Dataset.open(dataset)
    recipe = changed_recipe(opened, overrides)
    answer = run(opened, recipe)
    for status in sorted(answer.before.keys() | answer.after.keys()):
        was, now = (counts.get(status, 0) for counts in (answer.before, answer.after))
        change = f"{now - was:+,}" if now != was else ""
        out.print(f"{was:>12,} -> {now:<12,} {change:>9}  {escape(status)}")
    out.print(f"samples: {answer.added:,} more, {answer.removed:,} fewer")
    if save is None:
        out.print("to build it: add --save RECIPE.yaml, then build with --source and --reuse")
        return
    text = yaml.safe_dump(recipe.to_dict(), sort_keys=False)
    storage.write_atomic(save, text.encode())
    source = opened.path("source.parquet")
    command = f"build {save} --source {source} --reuse {dataset} --out NEW"
    out.print(f"written: {escape(save)}; to build it: {escape(command)}")


@app.command()
def explain(
    dataset: DatasetUri,
    named: Annotated[
        str,
        typer.Argument(
            metavar="KEY|PATH", help="A key, a sha256, a path or URI, or its end: 01.jpg."
        ),
    ],
    limit: Annotated[int, typer.Option(min=1, help="Images to tell of, where several match.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list.")] = False,
) -> None:
    """Tell one image's whole story: found where, judged how, kept where; no image is read."""
    from pipeline.ledger.explain import find, tell
    from pipeline.terminal import story_view

    opened = Dataset.open(dataset)
    found = find(opened, named)
    stories = tell(opened, found.slice(0, limit))
    if as_json:
        typer.echo(json.dumps([asdict(story) for story in stories], indent=2))
    else:
        for story in stories:
            story_view.show(story)
    if found.num_rows > limit:
        err.print(f"{limit:,} of {found.num_rows:,} images; --limit shows more")


def _show_counts(table: pa.Table) -> None:
    grouped = table.group_by("status").aggregate(
        [("status", "count"), *(("value", how) for how in ("min", "max")), ("threshold", "max")]
    )
    for row in grouped.sort_by(
        [("status_count", "descending"), ("status", "ascending")]
    ).to_pylist():
        out.print(f"{row['status_count']:>12,}  {escape(row['status'])}{_range(row)}")
    out.print(f"{table.num_rows:>12,}  images gave no sample")


def _range(row: dict[str, Any]) -> str:
    if row["value_min"] is None:
        return ""
    told = f"  {row['value_min']:g} to {row['value_max']:g}"
    return told if row["threshold_max"] is None else f"{told}, threshold {row['threshold_max']:g}"


def _show_images(table: pa.Table, rule: str, limit: int) -> None:
    names = {rule, f"rejected:{rule}", f"failed:{rule}"}
    found = table.filter(pc.is_in(table["status"], pa.array(sorted(names))))
    if not found.num_rows:
        known = ", ".join(sorted(set(table["status"].to_pylist()))) or "none"
        raise UsageError(f"no image was rejected by {rule!r}; statuses here: {known}")
    for row in found.slice(0, limit).to_pylist():
        told = [f"{row[name]:g}" for name in ("value", "threshold") if row[name] is not None]
        notes = [note for note in (row["against"], row["detail"]) if note]
        line = "  ".join([" / ".join(told) or "-", row["uri"], *notes])
        out.print(
            escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line))
        )
    out.print(f"{min(limit, found.num_rows):,} of {found.num_rows:,} images")
