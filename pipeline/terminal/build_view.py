"""A build as an operator sees it: one live view on a terminal, a line now and then elsewhere."""

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from catalog.sample import OK
from pipeline.attempts.outcome import UnitFailure, UnitReport
from pipeline.scan.scan import Progress as ScanProgress
from pipeline.terminal.console import err

LogFormat: TypeAlias = Literal["text", "json"]

_LINE_EVERY = 30.0  # seconds between lines where there is no terminal


@dataclass(slots=True)
class Tally:
    """What one build has come to so far.

    Attributes:
        units: units to do.
        began: when, on the monotonic clock; seconds.
        done: units committed.
        failures: calls that committed nothing.
        counts: images by status.
        busy: latest share of its time that each worker's device worked, 0..1.
    """

    units: int
    began: float
    done: int = 0
    failures: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    busy: dict[str, float] = field(default_factory=dict)

    def add(self, report: UnitReport) -> None:
        """Count a committed unit."""
        self.done += 1
        self.counts.update(report.counts)
        if report.device_busy is not None:
            self.busy[report.worker] = report.device_busy

    def at(self, now: float) -> dict[str, Any]:
        """Return the figures at a time of the monotonic clock, as JSON types."""
        seconds = max(now - self.began, 1e-9)
        images = self.counts.total()
        left = (self.units - self.done) * seconds / self.done if self.done else None
        busy = sum(self.busy.values()) / len(self.busy) if self.busy else None
        return {
            "units_done": self.done,
            "units": self.units,
            "images": images,
            "samples": self.counts[OK],
            "images_per_second": round(images / seconds, 2),
            "device_busy": None if busy is None else round(busy, 3),
            "rejects": {kind: n for kind, n in sorted(self.counts.items()) if kind != OK},
            "failed_units": self.failures,
            "seconds_left": None if left is None else round(left),
        }


class BuildView:
    """Shows a build on stderr; a `pipeline.build.build.Observer`. Use as a context manager."""

    def __init__(self, log_format: LogFormat = "text") -> None:
        self._json = log_format == "json"
        self._on_terminal = err.is_terminal and not self._json
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._live = Live(console=err, transient=True, refresh_per_second=4)
        self._tally = Tally(units=0, began=time.monotonic())
        self._shown = time.monotonic()

    def __enter__(self) -> "BuildView":
        if self._on_terminal:
            self._live.update(self._bar)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def scanning(self) -> ScanProgress:
        """Return what shows the parts scanned."""
        task = self._bar.add_task("scan", total=None)

        def show(done: int, total: int) -> None:
            self._bar.update(task, completed=done, total=total)
            if not self._on_terminal and self._due(done == total):
                self._say("scan", f"scan: {done:,} of {total:,} files read", files=done, of=total)

        return show

    def planned(self, units: int, pending: int, images: int) -> None:
        """Say what is left to do."""
        self._tally = Tally(units=pending, began=time.monotonic())
        self._say(
            "plan",
            f"plan: {images:,} images in {units:,} units; "
            f"{units - pending:,} done, {pending:,} to do",
            images=images,
            units=units,
            pending=pending,
        )
        self._task = self._bar.add_task("units", total=pending)

    def unit_done(self, report: UnitReport) -> None:
        """Count a unit."""
        self._tally.add(report)
        self._bar.update(self._task, advance=1)
        figures = self._tally.at(time.monotonic())
        if self._on_terminal:
            self._live.update(Group(self._bar, _table(figures)))
        elif self._due(self._tally.done == self._tally.units):
            self._say("progress", f"build: {_sentence(figures)}", **figures)

    def unit_failed(self, failure: UnitFailure) -> None:
        """Show why a unit was not committed."""
        self._tally.failures += 1
        self._say(
            "failure",
            f"unit {failure.index} failed: {failure.error}: {failure.detail}",
            unit=failure.index,
            error=failure.error,
            detail=failure.detail,
        )

    def _say(self, event: str, text: str, **fields: Any) -> None:
        if self._json:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            line = json.dumps({"time": now, "event": event, **fields})
            err.print(line, markup=False, highlight=False)
        else:
            err.print(escape(text))

    def _due(self, last: bool) -> bool:
        now = time.monotonic()
        if last or now - self._shown >= _LINE_EVERY:
            self._shown = now
            return True
        return False


def _sentence(figures: dict[str, Any]) -> str:
    parts = [
        f"{figures['units_done']:,} of {figures['units']:,} units",
        f"{figures['samples']:,} samples of {figures['images']:,} images",
        f"{figures['images_per_second']:.1f} images/s",
    ]
    if figures["device_busy"] is not None:
        parts.append(f"device {figures['device_busy']:.0%} busy")
    parts += [f"{kind} {count:,}" for kind, count in figures["rejects"].items()]
    if figures["failed_units"]:
        parts.append(f"{figures['failed_units']:,} failed calls")
    if figures["seconds_left"]:
        parts.append(f"{timedelta(seconds=figures['seconds_left'])} left")
    return ", ".join(parts)


def _table(figures: dict[str, Any]) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for part in _sentence(figures).split(", ")[1:]:
        table.add_row(escape(part))
    return table
