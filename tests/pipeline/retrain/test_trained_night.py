"""Nights that train: on a base with random weights, so that they are short; it learns nothing."""

import html
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from catalog import storage
from catalog.dataset.dataset import Dataset
from catalog.sample import sample_key
from pipeline.commands.cli import app
from pipeline.retrain import training
from pipeline.retrain.promotions import current
from tests.pipeline.retrain.test_night import SETS, draw
from tests.random_base import write_random_base
from tests.training.stepping import forget_accelerate
from training.data.held_out import read_held_out
from training.run.checkpoint import list_checkpoints
from training.run.folder import read_settings

STEPS = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """A source of twenty pictures, a base, and nightly.yaml."""
    return write_place(tmp_path_factory.mktemp("schedule"), pictures)


def write_place(folder: Path, pictures: Path) -> Path:
    shutil.copytree(pictures, folder / "in")
    for number in range(10):
        draw(folder / "in" / "more" / f"{number}.png", 100 + number, 50 + number)
    write_random_base(str(folder / "base"))
    schedule = {
        "folder": str(folder / "nightly"),
        "recipe": "canny",
        "set": SETS,
        "images": [str(folder / "in")],
        "latents": {},
        "train": {
            **{"base": str(folder / "base"), "steps": STEPS, "batch_size": 2},
            **{"learning_rate": 0.1, "max_grad_norm": 0},
            **{"probe_every": 2, "probe_steps": 1, "probe_samples": 2, "checkpoint_every": 1},
        },
        "measure": {"samples": 2, "seeds": [0, 1], "steps": 1, "guidance": 1},
        "gate": {"adherence_margin": 10},
    }
    (folder / "nightly.yaml").write_text(json.dumps(schedule))
    return folder


def call(place: Path, night: str, *more: str) -> Result:
    command = ["rebuild", "--config", str(place / "nightly.yaml"), "--local", "--run-id", night]
    done = CliRunner().invoke(app, [*command, *more])
    forget_accelerate()
    return done


def summary(done: Result) -> dict[str, Any]:
    assert done.exit_code in (0, 3), done.output
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def run_of(place: Path, night: str) -> Path:
    return place / "nightly" / "runs" / night


@pytest.fixture(scope="module")
def week(place: Path) -> dict[str, dict[str, Any]]:
    """Three nights: the first, one with new pictures, and one that the gate refuses."""
    told = {"one": summary(call(place, "one"))}
    draw(place / "in" / "more" / "late.png", 130, 99)
    told["two"] = summary(call(place, "two"))
    draw(place / "in" / "more" / "later.png", 140, 100)
    told["three"] = summary(call(place, "three", "--set", "gate.adherence_margin=0"))
    return told


def test_each_night_goes_on_from_the_promoted_run(
    place: Path, week: dict[str, dict[str, Any]]
) -> None:
    assert [week[night]["outcome"] for night in ("one", "two")] == ["promoted", "promoted"]
    first, second = (read_settings(run_of(place, night)) for night in ("one", "two"))
    assert first is not None
    assert second is not None
    assert first["config"]["start_from"] is None
    assert second["config"]["start_from"] == str(run_of(place, "one"))
    assert second["config"]["snapshot"] == "two"
    assert second["identity"]["rows"] == first["identity"]["rows"] + 1
    assert first["identity"]["latents"] is not None
    assert read_held_out(run_of(place, "one")) == read_held_out(run_of(place, "two"))


def test_adherence_has_a_figure_a_seed_and_the_promoted_one_is_taken_over(
    place: Path, week: dict[str, dict[str, Any]]
) -> None:
    one, two = week["one"]["figures"], week["two"]["figures"]
    assert one["promoted"] is None
    assert len(set(one["candidate"]["adherence"])) == 2
    assert two["promoted"]["adherence"] == one["candidate"]["adherence"]


def test_the_page_shows_both_runs(place: Path, week: dict[str, dict[str, Any]]) -> None:
    page = html.unescape((place / "nightly" / "nights" / "two" / "morning.html").read_text())
    assert page.count("<img") == 2
    assert "Current is this night's, promotion 2." in page


def test_what_is_worse_is_refused_and_kept(
    place: Path, week: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(place / "in" / "more" / "latest.png", 150, 101)
    before = current(str(place / "nightly"))
    assert before is not None
    monkeypatch.setattr(training.Trainer, "_adherence", lambda *_: [-5.0, -5.1])
    done = call(place, "four", "--set", "gate.adherence_margin=0.02")
    assert done.exit_code == 3
    told = summary(done)
    assert told["why"].startswith("Adherence is -5.050")
    assert current(str(place / "nightly")) == before
    assert (run_of(place, "four") / "config.json").is_file()
    assert "four" in Dataset.open(before.dataset).snapshots()


def test_a_night_that_dies_in_its_training_goes_on_there(
    place: Path, week: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(place / "in" / "more" / "last.png", 160, 102)
    with monkeypatch.context() as patch:
        patch.setattr("training.run.loop.finish", _dies)
        with pytest.raises(_Death):
            call(place, "five")
    held = list_checkpoints(run_of(place, "five"))
    assert [one.position.step for one in held] == [0, 1, 2, 3]
    reads: list[str] = []
    monkeypatch.setattr(
        "pipeline.retrain.night.append_changes", lambda *_, **__: reads.append("again")
    )
    assert summary(call(place, "five"))["outcome"] == "promoted"
    assert not reads  # the build was done, and is not done again


class _Death(BaseException):
    """In the place of a kill."""


def _dies(_: object) -> None:
    raise _Death


def test_held_out_samples_that_left_the_source_are_replaced_by_new_ones(
    pictures: Path, tmp_path: Path
) -> None:
    """By a tenth of a batch that came: neither run has trained on what it is measured on."""
    place = write_place(tmp_path, pictures)
    summary(call(place, "one"))
    held_out = read_held_out(run_of(place, "one"))
    assert len(held_out) == 2
    before = {sample_key(storage.sha256_file(str(path))): path for path in images_of(place)}
    for key in held_out:
        before[key].unlink()
    for number in range(20):
        draw(place / "in" / "batch" / f"{number}.png", 200 + number, 300 + number)
    summary(call(place, "two"))
    now = read_held_out(run_of(place, "two"))
    assert len(now) == 2
    assert not set(now) & before.keys()
    page = html.unescape((place / "nightly" / "nights" / "two" / "morning.html").read_text())
    assert page.count("<img") == 2
    assert "its probes are of other samples" in page
    measured = json.loads((place / "nightly" / "nights" / "two" / "measure.json").read_text())
    assert len(measured["promoted"]) == len(measured["candidate"]) == 2


def test_lineage_walks_from_a_run_to_its_images_and_back(
    place: Path, week: dict[str, dict[str, Any]]
) -> None:
    run, dataset = run_of(place, "two"), week["two"]["dataset"]
    told = lineage(str(run))
    assert (told["snapshot"], told["samples"]) == ("two", week["two"]["samples"] - 2)
    assert told["start"]["run"] == str(run_of(place, "one"))
    assert told["made"]["recipe"] == "canny"
    assert told["made"]["sources"] == [f"file://{place / 'in'}"]
    back = ["--dataset", dataset, "--runs", str(place / "nightly" / "runs")]

    def seen(named: str) -> tuple[list[str], dict[str, str]]:
        (image,) = lineage(named, *back)["images"]
        runs = {Path(one["run"]).name: one["how"] for one in image["runs"]}
        return image["snapshots"], {night: runs[night] for night in ("one", "two")}

    late = str(place / "in" / "more" / "late.png")
    assert seen(late)[1] == {"one": "not seen", "two": "trained on"}
    assert "one" not in seen(late)[0]
    assert "two" in seen(late)[0]
    held_out = read_held_out(run)
    assert seen(held_out[0])[1] == {"one": "held out", "two": "held out"}
    first, *_ = sorted({*Dataset.open(dataset).view(snapshot="one").keys()} - set(held_out))
    assert seen(first)[1] == {"one": "trained on", "two": "trained on"}
    gone = place / "gone.txt"
    gone.write_text(first)
    assert CliRunner().invoke(app, ["remove", dataset, "--keys", str(gone)]).exit_code == 0
    assert seen(first) == ([], {"one": "trained on", "two": "trained on"})
    text = CliRunner().invoke(app, ["lineage", str(run)]).output
    assert "went on from" in text
    assert str(run_of(place, "one")) in text.replace("\n", "")


def lineage(*named: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["lineage", *named, "--json"])
    assert done.exit_code == 0, done.output
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def images_of(place: Path) -> list[Path]:
    return [path for path in (place / "in").rglob("*") if path.suffix in (".png", ".jpg")]
