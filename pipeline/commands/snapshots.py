"""Commands that keep a dataset as it once was, compare what was kept, and let it go."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer
from rich.markup import escape

from catalog.dataset import snapshots as catalog
from catalog.dataset.dataset import Dataset
from catalog.dataset.snapshots import Snapshot
from pipeline.commands.options import DatasetUri, Json
from pipeline.errors import UsageError
from pipeline.terminal.console import err, out, show_json

app = typer.Typer()

SnapshotArgument = Annotated[str, typer.Argument(metavar="NAME", help="Of the snapshot.")]


@app.command()
def snapshot(dataset: DatasetUri, name: SnapshotArgument) -> None:
    """Keep the dataset as it is now under a name; no sample is copied."""
    made = catalog.take_snapshot(Dataset.open(dataset), name)
    out.print(f"{escape(made.name)}: {made.samples:,} samples, generation {made.generation}")


@app.command()
def snapshots(
    dataset: DatasetUri,
    drop: Annotated[bool, typer.Option("--drop", help="Drop the old ones; see --keep.")] = False,
    keep: Annotated[int | None, typer.Option(min=0, help="The newest that stay.")] = None,
    older_than: Annotated[
        float | None, typer.Option(min=0, help="Days; what is younger stays.")
    ] = None,
    protect: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="This one stays. Repeatable.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List, and drop nothing.")] = False,
    json: Json = False,
) -> None:
    """List the snapshots, the oldest first, or drop old ones; samples go by `compact`."""
    uri = Dataset.open(dataset).uri
    found = catalog.list_snapshots(uri)
    if not drop:
        if keep is not None or older_than is not None or protect or dry_run:
            raise UsageError("--keep, --older-than, --protect and --dry-run go with --drop")
        _list(found, json)
        return
    if keep is None:
        raise UsageError("--drop needs --keep N: how many of the newest stay")
    age = timedelta(days=older_than or 0)
    old = catalog.choose_old(found, keep=keep, older_than=age, protect=protect or ())
    for one in () if dry_run else old:
        catalog.drop_snapshot(uri, one.name)
    names = [one.name for one in old]
    if json:
        kept = [one.name for one in found if one.name not in names]
        show_json({"dropped": names, "kept": kept, "dry_run": dry_run})
        return
    for one in old:
        _show(one)
    verb = "would drop" if dry_run else "dropped"
    out.print(f"{verb} {len(old):,} of {len(found):,} snapshots")
    if old and not dry_run:
        out.print(f"to delete what they had alone: compact {escape(dataset)}")


@app.command()
def diff(
    dataset: DatasetUri,
    first: Annotated[str, typer.Argument(metavar="A", help="A snapshot.")],
    second: Annotated[
        str | None, typer.Argument(metavar="[B]", help="Another; default the dataset as it is now.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Keys of each kind to show.")] = 20,
    json: Json = False,
) -> None:
    """Say which samples came, went and changed between two states, and why they went."""
    from pipeline.ledger.diff import diff as run

    found = run(Dataset.open(dataset), first, second)
    kinds = {"added": found.added, "removed": list(found.removed), "changed": found.changed}
    counts = {kind: len(keys) for kind, keys in kinds.items()}
    if json:
        shown = {kind: keys[:limit] for kind, keys in kinds.items()}
        shown_why = {key: found.removed[key] for key in shown["removed"]}
        totals = {"before": found.before, "after": found.after, "removed_by": found.reasons}
        show_json({"counts": counts, **totals, "keys": {**shown, "removed": shown_why}})
        return
    for kind, keys in kinds.items():
        for key in keys[:limit]:
            why = f"  {escape(found.removed[key])}" if kind == "removed" else ""
            out.print(f"{kind:>7}  {key}{why}")
        if len(keys) > limit:
            err.print(f"{limit:,} of {len(keys):,} {kind}; --limit shows more")
    for why, count in found.reasons.items():
        out.print(f"{count:>12,}  {escape(why)}")
    told = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    out.print(f"{found.before:,} -> {found.after:,} samples: {told}")


def _list(found: Sequence[Snapshot], json: bool) -> None:
    if json:
        show_json({"snapshots": [asdict(one) for one in found]})
        return
    for one in found:
        _show(one)
    if not found:
        out.print("no snapshots yet")


def _show(one: Snapshot) -> None:
    out.print(
        f"{one.time:%Y-%m-%d %H:%M}  {one.samples:>9,} samples  generation {one.generation}  "
        f"{escape(one.name)}"
    )
