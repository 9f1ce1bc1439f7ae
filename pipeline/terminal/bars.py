"""Bars for work that is counted in steps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress

from pipeline.terminal.console import err


@contextmanager
def sampling_bar(steps: int) -> Iterator[Callable[[], None]]:
    """Show a bar on a terminal while sampling; yields what is called at each step."""
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("sampling", total=steps)
        yield lambda: progress.advance(task)


@contextmanager
def encoding_bar() -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal while units are encoded; yields what is told: done, and of how many.

    Elsewhere, what is left to do is said once.
    """
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("encoding units", total=None)

        def show(done: int, units: int) -> None:
            first = progress.tasks[0].total is None
            progress.update(task, completed=done, total=units)
            if first and not err.is_terminal:
                err.print(f"encoding: {done:,} of {units:,} units are done")

        yield show
