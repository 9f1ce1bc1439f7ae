"""`snapshot`, `snapshots` and `diff` as they are typed; and a training on a snapshot."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from catalog.dataset.compact import compact
from catalog.dataset.dataset import Dataset
from catalog.dataset.snapshots import drop_snapshot
from catalog.errors import DatasetError
from pipeline.build.build import BuildResult
from pipeline.commands.cli import app
from pipeline.commands.train_settings import settings_of
from pipeline.errors import UsageError
from pipeline.evaluate.rows import held_out_rows
from tests.random_base import write_random_base
from tests.rules import ANY_LOOK
from training.data.held_out import read_held_out
from training.run.folder import read_settings
from training.run.loop import train
from training.settings.config import TrainConfig

Call = Callable[..., Result]


@pytest.fixture
def source(pictures: Path, tmp_path: Path) -> Path:
    shutil.copytree(pictures, tmp_path / "in")
    return tmp_path / "in"


@pytest.fixture
def dataset(source: Path, tmp_path: Path, make: Callable[..., BuildResult]) -> str:
    make(source, tmp_path / "d")
    return str(tmp_path / "d")


@pytest.fixture
def call() -> Call:
    def run(*words: str, good: bool = True) -> Result:
        done = CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})
        assert (done.exit_code == 0) == good, done.output
        return done

    return run


def test_snapshots_are_taken_listed_and_dropped(dataset: str, call: Call) -> None:
    assert "no snapshots yet" in call("snapshots", dataset).output
    for name in ("mon", "tue", "wed", "thu"):
        assert f"{name}: 10 samples, generation 0" in call("snapshot", dataset, name).output
    listed = json.loads(call("snapshots", dataset, "--json").output)["snapshots"]
    assert [one["name"] for one in listed] == ["mon", "tue", "wed", "thu"]
    assert listed[0]["samples"] == 10
    retain = ["snapshots", dataset, "--drop", "--keep", "1", "--protect", "tue"]
    assert "would drop 2 of 4" in call(*retain, "--dry-run").output
    assert "dropped 0 of 4" in call(*retain, "--older-than", "1").output
    dropped = json.loads(call(*retain, "--json").output)
    assert dropped == {"dropped": ["mon", "wed"], "kept": ["tue", "thu"], "dry_run": False}
    assert Dataset.open(dataset).snapshots() == ["tue", "thu"]


def test_what_makes_no_sense_is_refused(dataset: str, call: Call) -> None:
    for words, why in (
        (["--keep", "1"], "go with --drop"),
        (["--dry-run"], "go with --drop"),
        (["--drop"], "--drop needs --keep N"),
    ):
        done = call("snapshots", dataset, *words, good=False)
        assert isinstance(done.exception, UsageError)
        assert why in str(done.exception)
    for words, why in (
        (["snapshot", dataset, "1k"], "would be read as a subset"),
        (["diff", dataset, "mon"], "no snapshot 'mon'"),
        (["snapshots", dataset, "--drop", "--keep", "0", "--protect", "mon"], "'mon' to protect"),
    ):
        done = call(*words, good=False)
        assert isinstance(done.exception, DatasetError)
        assert why in str(done.exception)


def test_a_diff_is_told(dataset: str, source: Path, call: Call) -> None:
    call("snapshot", dataset, "mon")
    assert "10 -> 10 samples: 0 added, 0 removed, 0 changed" in call("diff", dataset, "mon").output
    _grow(dataset, source, call)
    told = call("diff", dataset, "mon", "--limit", "1").output
    assert "5  gone from the source" in told
    assert "10 -> 5 samples: 0 added, 5 removed, 1 changed" in told
    assert "1 of 5 removed; --limit shows more" in told
    found = json.loads(call("diff", dataset, "mon", "--json").output)
    assert found["counts"] == {"added": 0, "removed": 5, "changed": 1}
    assert found["removed_by"] == {"gone from the source": 5}
    assert set(found["keys"]["removed"].values()) == {"gone from the source"}


def test_gc_takes_what_a_killed_snapshot_left(dataset: str, call: Call) -> None:
    call("snapshot", dataset, "mon")
    call("snapshot", dataset, "tue")
    (Path(dataset) / "snapshots" / "mon" / "snapshot.json").unlink()
    assert "removed 0 files" in call("gc", dataset).output
    then = time.time() - 7200
    for path in Path(dataset).rglob("*"):
        os.utime(path, (then, then))
    told = call("gc", dataset).output
    assert "snapshots/mon/manifest.parquet: snapshot" in told
    assert "removed 2 files" in told
    assert os.listdir(Path(dataset) / "snapshots") == ["tue"]


def test_a_run_on_a_snapshot_sees_what_was_there(
    dataset: str, source: Path, call: Call, tmp_path: Path
) -> None:
    call("snapshot", dataset, "mon")
    whole = Dataset.open(dataset).view()
    _grow(dataset, source, call)
    compact(Dataset.open(dataset))
    write_random_base(str(tmp_path / "base"), resolutions=2, layers=1)
    flags = {"dataset": dataset, "snapshot": "mon", "subset": "8", "out": str(tmp_path / "run")}
    flags |= {"base": str(tmp_path / "base"), "steps": 1, "batch_size": 1, "held_out": 2}
    config = settings_of({**flags, "probe_every": 0}, None, [])
    summary = train(config, lambda report: None)
    settings = read_settings(summary.folder)
    assert settings is not None
    assert settings["config"]["snapshot"] == "mon"
    held_out = read_held_out(summary.folder)
    rows = held_out_rows(summary.folder, Dataset.open(dataset))
    assert rows.keys() == list(held_out)
    assert settings["identity"]["rows"] == len(set(whole.keys()[:8]) - set(held_out))
    again = train(config, lambda report: None)
    assert again.steps_done == 0
    drop_snapshot(dataset, "mon")
    with pytest.raises(DatasetError, match="no snapshot 'mon'"):
        held_out_rows(summary.folder, Dataset.open(dataset))


def test_a_run_of_before_there_were_snapshots_goes_on(
    dataset: str, call: Call, tmp_path: Path
) -> None:
    write_random_base(str(tmp_path / "base"), resolutions=2, layers=1)
    config = TrainConfig(
        dataset=dataset,
        condition="canny",
        base=str(tmp_path / "base"),
        out=str(tmp_path / "run"),
        steps=1,
        batch_size=1,
        held_out=2,
        probe_every=0,
    )
    folder = train(config, lambda report: None).folder
    kept = json.loads((folder / "train.json").read_bytes())
    del kept["config"]["snapshot"]
    (folder / "train.json").write_text(json.dumps(kept))
    assert len(held_out_rows(folder, Dataset.open(dataset))) == 2
    assert train(config.model_copy(update={"steps": 2}), lambda report: None).steps_done == 1


def _grow(dataset: str, source: Path, call: Call) -> None:
    """Let five images go and one have another caption."""
    shutil.rmtree(source / "odd")
    (source / "even" / "02.txt").write_text("another caption\n")
    sets = ["image.resolution=64", "samples_per_unit=3", *ANY_LOOK]
    words = [word for one in sets for word in ("--set", one)]
    call("build", "canny", "--local", "--out", dataset, "--append", *words)
