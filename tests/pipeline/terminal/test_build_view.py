"""What an operator is told: the same figures as a sentence, as JSON lines, or live."""

import io
import json
import re

import pytest
from rich.console import Console

from pipeline.attempts.outcome import UnitFailure, UnitReport
from pipeline.terminal import build_view
from pipeline.terminal.build_view import BuildView, LogFormat, Tally


def report(worker: str = "a:1", busy: float | None = 0.9, **counts: int) -> UnitReport:
    return UnitReport(
        index=0,
        unit_id="0" * 32,
        outcome="committed",
        counts={name.replace("_", ":"): count for name, count in counts.items()},
        seconds=1.0,
        stages={},
        worker=worker,
        device_busy=busy,
        caption_batches=0,
        network_images=0,
    )


FAILURE = UnitFailure(index=3, unit_id="3" * 32, error="OSError", detail="[odd] disk", fatal=False)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(build_view, "err", Console(file=stream, soft_wrap=True, width=200))
    return stream


def watch(view: BuildView) -> None:
    with view:
        view.scanning()(5, 5)
        view.planned(units=3, pending=2, images=30)
        view.unit_done(report(ok=8, rejected_keypoints=2))
        view.unit_failed(FAILURE)
        view.unit_done(report(ok=10))


def test_a_tally_reckons_rate_busy_share_and_time_left() -> None:
    tally = Tally(units=4, began=100.0)
    assert tally.at(100.0)["seconds_left"] is None
    tally.add(report("a:1", 0.5, ok=10))
    tally.add(report("a:1", 0.8, ok=6, rejected_coverage=4))
    figures = tally.at(110.0)
    assert figures["images_per_second"] == 2.0
    assert figures["device_busy"] == 0.8  # the latest of each worker
    assert figures["seconds_left"] == 10
    assert figures["rejects"] == {"rejected:coverage": 4}
    tally.add(report("b:2", 0.6, ok=1))
    assert tally.at(110.0)["device_busy"] == 0.7
    no_device = Tally(units=1, began=0.0)
    no_device.add(report(busy=None, ok=1))
    assert no_device.at(1.0)["device_busy"] is None


def test_lines_say_what_a_person_asks(said: io.StringIO) -> None:
    watch(BuildView())
    scan, plan, failure, progress = said.getvalue().splitlines()
    assert scan == "scan: 5 of 5 files read"
    assert plan == "plan: 30 images in 3 units; 1 done, 2 to do"
    assert failure == "unit 3 failed: OSError: [odd] disk"
    expected = (
        r"build: 2 of 2 units, 18 samples of 20 images, [\d.]+ images/s, device 90% busy, "
        r"rejected:keypoints 2, 1 failed calls"
    )
    assert re.fullmatch(expected, progress)


def test_json_lines_hold_the_same_figures(said: io.StringIO) -> None:
    watch(BuildView("json"))
    events = [json.loads(line) for line in said.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["scan", "plan", "failure", "progress"]
    assert events[1]["pending"] == 2
    assert events[2]["detail"] == "[odd] disk"
    assert events[3]["samples"] == 18
    assert events[3]["rejects"] == {"rejected:keypoints": 2}


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_terminal_has_one_live_view_unless_json_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, log_format: LogFormat
) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, _environ={"TERM": "xterm"})
    monkeypatch.setattr(build_view, "err", console)
    watch(BuildView(log_format))
    assert ("\x1b[" in stream.getvalue()) == (log_format == "text")
