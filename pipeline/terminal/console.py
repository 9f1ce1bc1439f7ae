"""Where the commands write, and results as tables."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog.dataset.dataset import Status
from pipeline.figures import counted, human_bytes
from pipeline.plan.judge import PlanSummary

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def show_status(uri: str, status: Status) -> None:
    """Print a dataset's counts."""
    table = _table(uri)
    table.add_row("units", f"{status.units_done:,} of {status.units:,} committed")
    table.add_row("images", f"{status.images:,} found")
    table.add_row("samples", f"{status.samples:,}")
    for kind, count in status.rejects.items():
        table.add_row(f"  {escape(kind)}", f"{count:,}")
    table.add_row("shards", human_bytes(status.shard_bytes))
    if status.mismatches:
        table.add_row("mismatches", f"{status.mismatches:,} from other environments")
    out.print(table)


def show_plan(summary: PlanSummary) -> None:
    """Print what a build would do."""
    table = _table("plan")
    table.add_row("fingerprint", summary.fingerprint)
    table.add_row("units", f"{summary.units:,}")
    table.add_row("images", f"{summary.images:,}")
    for kind, count in summary.rejects.items():
        table.add_row(f"  {escape(kind)}", f"{count:,}")
    table.add_row("to read", human_bytes(summary.bytes_to_read))
    table.add_row("to write", f"about {human_bytes(summary.bytes_to_write)}")
    out.print(table)


def show_source(metadata: Mapping[str, Any]) -> None:
    """Print what a scan found beside the images, and what it passed over.

    Args:
        metadata: kept with a source table; one of older code says less.
    """
    if captions := metadata.get("captions"):
        out.print(f"captions: {captions[0]:,} of {captions[1]:,} images")
    if ignored := metadata.get("ignored"):
        out.print(f"passed over: {escape(counted(ignored))}")


def _table(title: str) -> Table:
    return Table("", "", title=escape(title), show_header=False, title_justify="left")
