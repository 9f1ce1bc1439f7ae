"""A night goes on where it was killed, and ends once."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from catalog import storage
from pipeline.errors import RetrainError, UsageError
from pipeline.retrain.journal import Journal, Outcome, unfinished


class Killed(BaseException):
    """In place of a SIGKILL."""


def night(folder: str, run_id: str, done: list[str], killed_in: str = "") -> list[Any]:
    journal = Journal(folder, run_id)

    def do(name: str) -> dict[str, Any]:
        if name == killed_in:
            raise Killed
        done.append(name)
        return {"stage": name, "images": (1, 2)}

    return [journal.stage(name, lambda name=name: do(name)) for name in ("scan", "build", "train")]


def test_what_is_done_is_not_done_twice(folder: str) -> None:
    done: list[str] = []
    for stage in ("scan", "build", "train"):
        with pytest.raises(Killed):
            night(folder, "2026-03-01T02:00:00", done, killed_in=stage)
        assert unfinished(folder) == "2026-03-01T02:00:00"
    outcomes = night(folder, "2026-03-01T02:00:00", done)
    assert done == ["scan", "build", "train"]
    assert outcomes[0] == {"stage": "scan", "images": [1, 2]}
    assert night(folder, "2026-03-01T02:00:00", done) == outcomes
    night(folder, "2026-03-02", done)
    assert len(done) == 6


def test_a_stage_gives_the_same_when_done_and_when_recorded(folder: str) -> None:
    journal = Journal(folder, "one")
    for name, outcome in (("a", None), ("b", []), ("c", (1, "é"))):
        first = journal.stage(name, lambda outcome=outcome: outcome)
        assert journal.stage(name, lambda: "again") == first
    assert first == [1, "é"]


def test_of_two_who_do_a_stage_the_first_record_counts(folder: str) -> None:
    journal = Journal(folder, "one")

    def slowly() -> str:
        assert Journal(folder, "one").stage("scan", lambda: "quick") == "quick"
        return "slow"

    assert journal.stage("scan", slowly) == "quick"


def test_a_night_ends_once(folder: str) -> None:
    journal = Journal(folder, "one")
    assert journal.outcome is None
    journal.end(Outcome.NOTHING_NEW, "no image came, none went")
    journal.end(Outcome.NOTHING_NEW, "no image came, none went")
    told = json.loads(storage.read_bytes(f"{folder}/nights/one/outcome.json"))
    assert told == {"outcome": "nothing new", "sentence": "no image came, none went"}
    assert Journal(folder, "one").outcome == ("nothing new", "no image came, none went")
    with pytest.raises(RetrainError, match="ended before: nothing new, no image came"):
        journal.end(Outcome.FAILED, "the disk is full")


def test_the_newest_night_is_the_one_to_go_on_with(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert unfinished(folder) is None
    for at, run_id in enumerate(("night-9", "night-10", "a-night-of-another-name")):
        Journal(folder, run_id).stage("scan", lambda: 1)
        os.utime(tmp_path / "nights" / run_id / "begun.json", (at, at))
        assert unfinished(folder) == run_id
    Journal(folder, "night-9").stage("build", lambda: 1)  # late work makes no night newer
    assert unfinished(folder) == "a-night-of-another-name"
    Journal(folder, "a-night-of-another-name").end(Outcome.FAILED, "it was given up")
    assert unfinished(folder) is None  # night-10 was passed over


@pytest.mark.parametrize(
    "run_id", ["", ".", "..", "../out", "a/b", "a b", "-flag", "ü", "a\n", "1" * 101]
)
def test_run_ids_that_are_no_names_are_refused(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(UsageError, match=r"run id .*: expected"):
        Journal(str(tmp_path), run_id)
    assert storage.walk(str(tmp_path)) == []


@pytest.mark.parametrize("name", ["outcome", "begun", "a/b", ""])
def test_a_stage_takes_no_name_of_the_journal_s_own(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a stage"):
        Journal(str(tmp_path), "one").stage(name, lambda: 1)


def test_a_run_id_that_is_a_number_is_refused_at_once(folder: str) -> None:
    with pytest.raises(UsageError, match=r"'20260301' would be read as a subset.*2026-03-01"):
        Journal(folder, "20260301")
    assert storage.list_names(folder) == []
