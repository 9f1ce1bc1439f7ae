"""Commands that ask the ledger: why images were rejected, and what other rules would do."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
import typer
import yaml
from rich.markup import escape

from catalog import storage
from catalog.dataset.dataset import REJECTS, Dataset
from catalog.errors import DatasetError
from pipeline.commands.options import DatasetUri, Json
from pipeline.errors import UsageError
from pipeline.terminal.console import err, out, show_json

if TYPE_CHECKING:
    from pipeline.ledger.requery import Answer

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
    json: Json = False,
) -> None:
    """Say why images gave no sample: rule, value, threshold."""
    if by not in (None, "rule"):
        raise UsageError(f"--by {by!r} is unknown; expected rule")
    opened = Dataset.open(dataset)
    uri = opened.path(REJECTS)
    if not storage.exists(uri):
        raise DatasetError(f"{dataset} is not finished: run its build command again")
    table = opened.rejects()
    found = _count(table) if rule is None else _of_rule(table, rule)
    if json:
        show_json(
            {
                "images": found.num_rows if rule else table.num_rows,
                "rows": found.slice(0, limit if rule else None).to_pylist(),
            }
        )
    elif rule is None:
        _show_counts(found, table.num_rows)
    else:
        _show_images(found, limit)


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
    json: Json = False,
) -> None:
    """Say what other rules would keep, from the ledger alone; no image is read."""
    from pipeline.ledger.requery import changed_recipe
    from pipeline.ledger.requery import requery as run

    opened = Dataset.open(dataset)
    recipe = changed_recipe(opened, overrides)
    answer = run(opened, recipe)
    if json:
        show_json(asdict(answer))
    else:
        _show_change(answer)
    if save is None:
        if not json:
            out.print("to build it: add --save RECIPE.yaml, then build with --source and --reuse")
        return
    text = yaml.safe_dump(recipe.to_dict(), sort_keys=False)
    storage.write_atomic(save, text.encode())
    source = opened.source
    command = f"build {save} --source {source} --reuse {dataset} --out NEW"
    if not json:
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
    json: Json = False,
) -> None:
    """Tell one image's whole story: found where, judged how, kept where; no image is read."""
    from pipeline.ledger.explain import find, tell
    from pipeline.terminal import story_view

    opened = Dataset.open(dataset)
    found = find(opened, named)
    stories = tell(opened, found.slice(0, limit))
    if json:
        told = [asdict(story) for story in stories]
        show_json({"images": found.num_rows, "stories": told})
    else:
        for story in stories:
            story_view.show(story)
    if found.num_rows > limit:
        err.print(f"{limit:,} of {found.num_rows:,} images; --limit shows more")


def _show_change(answer: "Answer") -> None:
    for status in sorted(answer.before.keys() | answer.after.keys()):
        was, now = (counts.get(status, 0) for counts in (answer.before, answer.after))
        change = f"{now - was:+,}" if now != was else ""
        out.print(f"{was:>12,} -> {now:<12,} {change:>9}  {escape(status)}")
    out.print(f"samples: {answer.added:,} more, {answer.removed:,} fewer")


def _count(table: pa.Table) -> pa.Table:
    grouped = table.group_by("status").aggregate(
        [("status", "count"), *(("value", how) for how in ("min", "max")), ("threshold", "max")]
    )
    return grouped.sort_by([("status_count", "descending"), ("status", "ascending")])


def _show_counts(counted: pa.Table, total: int) -> None:
    for row in counted.to_pylist():
        out.print(f"{row['status_count']:>12,}  {escape(row['status'])}{_range(row)}")
    out.print(f"{total:>12,}  images gave no sample")


def _range(row: dict[str, Any]) -> str:
    if row["value_min"] is None:
        return ""
    told = f"  {row['value_min']:g} to {row['value_max']:g}"
    return told if row["threshold_max"] is None else f"{told}, threshold {row['threshold_max']:g}"


def _of_rule(table: pa.Table, rule: str) -> pa.Table:
    names = {rule, f"rejected:{rule}", f"failed:{rule}"}
    found = table.filter(pc.is_in(table["status"], pa.array(sorted(names))))
    if not found.num_rows:
        known = ", ".join(sorted(set(table["status"].to_pylist()))) or "none"
        raise UsageError(f"no image was rejected by {rule!r}; statuses here: {known}")
    return found


def _show_images(found: pa.Table, limit: int) -> None:
    for row in found.slice(0, limit).to_pylist():
        told = [f"{row[name]:g}" for name in ("value", "threshold") if row[name] is not None]
        notes = [note for note in (row["against"], row["detail"]) if note]
        line = "  ".join([" / ".join(told) or "-", row["uri"], *notes])
        out.print(escape(line))
    out.print(f"{min(limit, found.num_rows):,} of {found.num_rows:,} images")
