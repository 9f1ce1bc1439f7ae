"""What a run tells while it goes on: TensorBoard scalars, its own file, and a bar or lines."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from training.watch.signals import LossRecord, losses

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One optimizer step.

    Attributes:
        step: optimizer steps done, from 1.
        loss: mean over the step's samples.
        learning_rate: the rate the step used.
        samples: how many it read.
        seconds: wall time, with the wait for data.
    """

    step: int
    loss: float
    learning_rate: float
    samples: int
    seconds: float


Report = Callable[[StepReport], None]


@contextmanager
def tensorboard_report(folder: Path, *, first: int, log_every: int) -> Iterator[Report]:
    """Yield a report that writes loss, learning rate and images/s each `log_every` steps.

    Args:
        folder: where the events go.
        first: the first step to come; what an interrupted run logged from there on is hidden.
        log_every: optimizer steps a point; losses are averaged over them.
    """
    writer = SummaryWriter(str(folder), purge_step=first)

    def write(last: StepReport, loss: float, rate: float) -> None:
        writer.add_scalar("loss", loss, last.step)
        writer.add_scalar("learning_rate", last.learning_rate, last.step)
        writer.add_scalar("images_per_second", rate, last.step)

    try:
        yield _windowed(write, log_every)
    finally:
        writer.close()


def file_report(run: Path, *, first: int, log_every: int) -> Report:
    """Return a report that keeps loss and images/s in the run folder each `log_every` steps.

    Args:
        run: the run folder; see `training.watch.signals`.
        first: the first step to come; what an interrupted run kept from there on is dropped.
        log_every: optimizer steps a record; losses are averaged over them.
    """
    series = losses(run)
    series.forget_after(first - 1)
    return _windowed(
        lambda last, loss, rate: series.append(
            LossRecord(step=last.step, loss=loss, images_per_second=rate)
        ),
        log_every,
    )


@contextmanager
def console_report(*, first: int, steps: int, log_every: int) -> Iterator[Report]:
    """Yield a report that draws a bar on a terminal, and elsewhere logs lines.

    Args:
        first: the first step to come.
        steps: the last step.
        log_every: optimizer steps a line; losses are averaged over them.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _windowed(
            lambda last, loss, rate: _log.info(
                "step %d of %d: loss %.4f, %.2f images/s", last.step, steps, loss, rate
            ),
            log_every,
        )
        return
    shown = TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:.2f} images/s")
    with Progress(
        BarColumn(), MofNCompleteColumn(), shown, TimeRemainingColumn(), console=console
    ) as bar:
        task = bar.add_task("", total=steps, completed=first - 1, loss=0.0, rate=0.0)
        yield _windowed(
            lambda last, loss, rate: bar.update(task, completed=last.step, loss=loss, rate=rate), 1
        )


def _windowed(write: Callable[[StepReport, float, float], None], size: int) -> Report:
    """Call `write` each `size` steps with the last report, the mean loss and the images/s since."""
    window: list[StepReport] = []

    def report(step: StepReport) -> None:
        window.append(step)
        if step.step % size == 0:
            seconds = sum(one.seconds for one in window)
            rate = sum(one.samples for one in window) / seconds
            write(step, fmean(one.loss for one in window), rate)
            window.clear()

    return report
