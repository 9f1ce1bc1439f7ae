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
