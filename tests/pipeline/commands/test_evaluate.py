"""`evaluate` on a dataset that the factory built and a run that was trained on it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from catalog.dataset.dataset import Dataset
from detectors.canny import CannySpec
from pipeline.commands.cli import app
from pipeline.errors import UsageError
from pipeline.evaluate.evaluate import evaluation_folder
from pipeline.recipe.made_by import condition_spec
from tests.random_base import write_random_base
from training.data.held_out import FILE, read_held_out, write_held_out
from training.run.folder import SETTINGS
from training.run.loop import train
from training.settings.config import TrainConfig

HELD_OUT = 3


@pytest.fixture(scope="module")
def runner() -> CliRunner:
    return CliRunner()


@pytest.fixture
def dataset(make, pictures, tmp_path) -> Dataset:
    make(pictures, tmp_path / "dataset")
    return Dataset.open(str(tmp_path / "dataset"))


@pytest.fixture
def run(dataset, tmp_path) -> Path:
    """A step on a base with random weights, on all rows but three."""
    write_random_base(str(tmp_path / "base"), resolutions=2, layers=1)
    config = TrainConfig(
        dataset=dataset.uri,
        condition="canny",
        base=str(tmp_path / "base"),
        out=str(tmp_path / "run"),
        steps=1,
        batch_size=1,
        held_out=HELD_OUT,
        probe_every=0,
    )
    train(config, lambda report: None)
    return tmp_path / "run"


def arguments(run: Path, dataset: Dataset, *more: str) -> list[str]:
    given = ["evaluate", "--run", str(run), "--dataset", dataset.uri, "--steps", "2"]
    return [*given, "--local-files-only", "--clip", "nobody/clip", *more]


def refusal(runner: CliRunner, line: list[str]) -> str:
    done = runner.invoke(app, line)
    assert isinstance(done.exception, UsageError), done.output
    return str(done.exception)


def test_held_out_rows_are_evaluated(runner, run, dataset):
    done = runner.invoke(app, arguments(run, dataset), catch_exceptions=False)
    assert done.exit_code == 0
    kept = json.loads((run / "evaluation" / "evaluation.json").read_bytes())
    assert tuple(kept["per_sample"]) == read_held_out(run)
    assert len(kept["per_sample"]) == HELD_OUT
    rows = {row["pictures"]: row for row in kept["rows"]}
    assert rows["photographs"]["mean"] > 0.9  # stored as JPEG, the edges were found before
    assert rows["no control"]["normalised"] == 0
    assert kept["metric"] == "Canny F1 (1 px)"
    text = (run / "evaluation" / "evaluation.md").read_text()
    assert "CLIP score: not measured, nobody/clip is not on this machine" in text
    grid = np.asarray(Image.open(run / "evaluation" / "grid.png"))
    assert grid.shape[0] > HELD_OUT * 64
    assert "photographs" in done.output


def test_all_rows_of_a_checkpoint(runner, run, dataset, tmp_path):
    (checkpoint,) = (run / "checkpoints").glob("*1")
    folder = tmp_path / "table"
    line = arguments(checkpoint, dataset, "--split", "all", "--samples", "2", "--out", str(folder))
    done = runner.invoke(app, line, catch_exceptions=False)
    assert done.exit_code == 0
    kept = json.loads((folder / "evaluation.json").read_bytes())
    assert kept["settings"]["samples"] == len(kept["per_sample"]) == 2
    again = tmp_path / "again"
    runner.invoke(app, [*line[:-1], str(again)], catch_exceptions=False)
    assert (again / "grid.png").read_bytes() == (folder / "grid.png").read_bytes()


def test_what_cannot_be_evaluated_is_refused(runner, run, dataset, make, pictures, tmp_path):
    write_held_out(run, ["0" * 32])
    assert "none of the 1 samples" in refusal(runner, arguments(run, dataset))
    (run / FILE).unlink()
    assert "held nothing out of training" in refusal(runner, arguments(run, dataset))
    message = refusal(runner, arguments(run, dataset, "--subset", "2"))
    assert "--subset goes with --split all" in message
    assert "--split 'some' is unknown" in refusal(
        runner, arguments(run, dataset, "--split", "some")
    )
    assert f"is no run: neither it nor its checkpoint has a {SETTINGS}" in refusal(
        runner, arguments(tmp_path / "nowhere", dataset)
    )


def test_an_evaluation_never_lies_in_a_checkpoint(run):
    (checkpoint,) = (run / "checkpoints").glob("*1")
    assert evaluation_folder(run) == run / "evaluation"
    assert evaluation_folder(checkpoint) == run / "evaluation" / checkpoint.name


def test_the_detector_comes_out_of_the_recipe(dataset):
    assert condition_spec(dataset, "canny") == CannySpec()
    with pytest.raises(UsageError, match="has no condition 'hed'; its recipe has: canny"):
        condition_spec(dataset, "hed")
    dataset.recipe["detectors"] = [{"condition": "canny", "detector": "sobel"}]
    with pytest.raises(UsageError, match="another version, its detector of 'canny'"):
        condition_spec(dataset, "canny")


def test_a_lower_precision_stays_near(runner, run, dataset, tmp_path):
    found = {}
    for precision in ("fp32", "bf16"):
        line = arguments(run, dataset, "--precision", precision, "--out", str(tmp_path / precision))
        assert runner.invoke(app, line, catch_exceptions=False).exit_code == 0
        kept = json.loads((tmp_path / precision / "evaluation.json").read_bytes())
        assert kept["settings"]["precision"] == precision
        found[precision] = {row["pictures"]: row["mean"] for row in kept["rows"]}
    assert found["bf16"] == pytest.approx(found["fp32"], abs=0.1)
    assert found["bf16"] != found["fp32"]
