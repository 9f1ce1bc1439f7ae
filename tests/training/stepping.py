"""What tests of runs share: reports that are kept, runs that end in the middle, states compared."""

from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState

from training.data.view import SampleView
from training.run.checkpoint import WEIGHTS, list_checkpoints, load_state
from training.run.session import Rows
from training.watch.reports import StepReport


def forget_accelerate() -> None:
    """Accelerate keeps the precision of the first run in a process-wide singleton."""
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


DATASET = "da7a"


def rows_of(view: SampleView, **changes: Any) -> Rows:
    """Return a view as what there is to train on, of a dataset that has no other rows."""
    return Rows(**{"view": view, "whole": view, "dataset": DATASET, **changes})


class Killed(Exception):
    pass


class Steps:
    """Collects reports, and ends the run after `die_at` steps."""

    def __init__(self, die_at: int | None = None) -> None:
        self.reports: list[StepReport] = []
        self.die_at = die_at

    def __call__(self, report: StepReport) -> None:
        self.reports.append(report)
        if report.step == self.die_at:
            raise Killed

    @property
    def losses(self) -> dict[int, float]:
        return {report.step: report.loss for report in self.reports}


def contents(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}


def assert_same_state(left: Path, right: Path) -> None:
    one, other = list_checkpoints(left)[-1], list_checkpoints(right)[-1]
    assert (one.step, one.position) == (other.step, other.position)
    assert one.files[WEIGHTS] == other.files[WEIGHTS]
    torch.testing.assert_close(
        load_state(one).optimizer, load_state(other).optimizer, rtol=0, atol=0
    )
