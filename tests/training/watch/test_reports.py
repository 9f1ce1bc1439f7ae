import logging
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.watch.reports import StepReport, console_report, file_report, tensorboard_report
from training.watch.signals import losses


def report_of(step: int, *, loss: float = 1.0) -> StepReport:
    return StepReport(step=step, loss=loss, learning_rate=1e-5, samples=4, seconds=0.5)


def points(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder)).Reload().Scalars(name)
    return [(event.step, pytest.approx(event.value)) for event in events]


def test_points_are_means_over_the_steps_since_the_last(tmp_path):
    with tensorboard_report(tmp_path, first=1, log_every=2) as report:
        for step, loss in enumerate([1.0, 3.0, 5.0, 6.0, 100.0], start=1):
            report(report_of(step, loss=loss))
    assert points(tmp_path, "loss") == [(2, 2.0), (4, 5.5)]
    assert points(tmp_path, "images_per_second") == [(2, 8.0), (4, 8.0)]
    assert points(tmp_path, "learning_rate") == [(2, 1e-5), (4, 1e-5)]


def test_what_was_logged_after_the_checkpoint_is_hidden(tmp_path):
    with tensorboard_report(tmp_path, first=1, log_every=1) as report:
        for step in (1, 2, 3, 4):
            report(report_of(step))
    with tensorboard_report(tmp_path, first=3, log_every=1) as report:
        report(report_of(3, loss=2.0))
    assert points(tmp_path, "loss") == [(1, 1.0), (2, 1.0), (3, 2.0)]


def test_a_run_keeps_its_losses_through_a_resume(tmp_path):
    report = file_report(tmp_path, first=1, log_every=2)
    for step in range(1, 7):
        report(report_of(step, loss=float(step)))
    report = file_report(tmp_path, first=5, log_every=2)
    for step in (5, 6):
        report(report_of(step, loss=9.0))
    kept = losses(tmp_path).read()
    assert [(one.step, one.loss) for one in kept] == [(2, 1.5), (4, 3.5), (6, 9.0)]
    assert kept[0].images_per_second == 8.0


def test_lines_where_there_is_no_terminal(caplog):
    with (
        caplog.at_level(logging.INFO, "training.watch.reports"),
        console_report(first=1, steps=4, log_every=2) as report,
    ):
        for step in (1, 2, 3):
            report(report_of(step, loss=0.25))
    assert caplog.messages == ["step 2 of 4: loss 0.2500, 8.00 images/s"]


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with console_report(first=3, steps=4, log_every=100) as report:
        report(report_of(3, loss=0.25))
    shown = capsys.readouterr().err
    assert "3/4" in shown
    assert "loss 0.2500  8.00 images/s" in shown
