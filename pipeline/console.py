"""What an operator sees: a live bar on a terminal, plain lines elsewhere; results as tables."""

import time
from collections import Counter

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from catalog.dataset import Status
from pipeline.plan import PlanSummary
from pipeline.scan import Progress as ScanProgress
from pipeline.unit import UnitReport

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

_LINE_EVERY = 10.0  # seconds between progress lines where there is no terminal


class BuildView:
    """Shows a build on stderr; a `pipeline.build.Observer`. Use as a context manager."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._bar = Progress(*columns, TimeRemainingColumn(), console=err, transient=True)
        self._live = err.is_terminal
        self._counts: Counter[str] = Counter()
        self._start = self._shown = time.monotonic()
        self._done = self._units = 0

    def __enter__(self) -> "BuildView":
        if self._live:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def scanning(self) -> ScanProgress:
        """Return what shows the parts scanned."""
        task = self._bar.add_task("scan", total=None)

        def show(done: int, total: int) -> None:
            self._bar.update(task, completed=done, total=total)
            if not self._live and self._due(done == total):
                err.print(f"scan: {done:,} of {total:,} files read")

        return show

    def planned(self, units: int, pending: int, images: int) -> None:
        """Say what is left to do."""
        done = units - pending
        err.print(f"plan: {images:,} images in {units:,} units; {done:,} done, {pending:,} to do")
        self._start, self._units = time.monotonic(), pending
        self._task = self._bar.add_task("units", total=pending)

    def unit_done(self, report: UnitReport) -> None:
        """Count a unit."""
        self._counts.update(report.counts)
        self._done += 1
        rate = sum(self._counts.values()) / max(time.monotonic() - self._start, 1e-9)
        self._bar.update(self._task, advance=1, description=f"units, {rate:.1f} images/s")
        if not self._live and self._due(self._done == self._units):
            counts = ", ".join(f"{kind} {n:,}" for kind, n in sorted(self._counts.items()))
            err.print(
                f"build: {self._done:,} of {self._units:,} units, {rate:.1f} images/s; {counts}"
            )

    def _due(self, last: bool) -> bool:
        now = time.monotonic()
        if last or now - self._shown >= _LINE_EVERY:
            self._shown = now
            return True
        return False


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


def human_bytes(count: int) -> str:
    """Write a number of bytes with a binary unit."""
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"


def _table(title: str) -> Table:
    return Table("", "", title=escape(title), show_header=False, title_justify="left")
