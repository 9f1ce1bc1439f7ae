"""Runs beside each other, on folders that hold no more than what runs record."""

import json
from pathlib import Path
from typing import Any

import pytest

from catalog.images import decode_image
from pipeline.compare.comparison import Comparison, compare
from pipeline.compare.runs import label_folders, read_runs
from pipeline.errors import UsageError
from training.measure.adherence import References
from training.settings.config import TrainConfig
from training.watch.run_plots import plot_runs
from training.watch.signals import (
    LossRecord,
    ProbeRecord,
    ReferenceRecord,
    losses,
    probes,
    write_references,
)

SUDDEN = {0: 0.16, 200: 0.16, 400: 0.60, 600: 0.83, 800: 0.82}
LEVEL = {0: 0.16, 200: 0.15, 400: 0.17}


def make_run(
    folder: Path,
    scores: dict[int, float] = SUDDEN,
    *,
    baseline: float = 0.16,
    batch: int = 4,
    rows: int | None = 1000,
    **settings: Any,
) -> Path:
    """Write a run of 800 steps that was probed so far as there are scores."""
    folder.mkdir(parents=True)
    references = References(baseline=baseline, real=0.96, reconstruction=0.9)
    record = ReferenceRecord(
        metric="Canny F1 (1 px)", higher_is_better=True, keys=("a", "b"), references=references
    )
    write_references(folder, record)
    for step, score in scores.items():
        kept = ProbeRecord(
            step=step,
            per_sample=(score, score),
            adherence=score,
            normalised=references.normalised(score),
        )
        probes(folder).append(kept)
    given = {"dataset": "d", "condition": "canny", "base": "b", "steps": 800, "out": str(folder)}
    config = TrainConfig(**{**given, "batch_size": batch, **settings})
    identity = {"dataset": "da7a", "base": "ba5e", "samples_per_step": batch}
    identity |= {} if rows is None else {"rows": rows}
    content = {"config": config.model_dump(mode="json"), "identity": identity}
    (folder / "train.json").write_text(json.dumps(content))
    return folder


def compared(*folders: Path) -> Comparison:
    return compare(read_runs(label_folders(folders)))


def test_the_figures_of_a_run(tmp_path):
    run = make_run(tmp_path / "one")
    for step, rate in ((10, 1.0), (20, 8.0), (30, 9.0)):
        losses(run).append(LossRecord(step=step, loss=0.2, images_per_second=rate))
    one, two = compared(run, make_run(tmp_path / "two", LEVEL, rows=None)).runs
    assert (one.first, one.best, one.best_step, one.last) == (0.16, 0.83, 600, 0.82)
    assert one.normalised == pytest.approx(0.825)
    assert (one.steps, one.images_seen) == (800, 3200)
    assert (one.convergence_step, one.convergence_images) == (400, 1600)
    assert (one.images_per_second, two.images_per_second) == (8.0, None)
    assert two.convergence_step is two.condition_gap is two.rows is None
    assert "-" in two.cells()


def test_settings_that_differ_have_a_column(tmp_path):
    rate = [{"trains": "mid_only", "until": 200}, {"trains": "unlocked", "learning_rate": 2e-6}]
    one = make_run(tmp_path / "one", learning_rate=3e-4, phases=rate, num_workers=3, log_every=1)
    two = make_run(tmp_path / "two", hint_encoder="paper", method="concat", subset="1k")
    table = compared(one, two)
    first, second = (row.settings for row in table.runs)
    assert dict(first) == {
        "subset": "all",
        "phases": "mid_only:200,unlocked at 2e-06",
        "learning_rate": "0.0003",
        "hint_encoder": "released",
    }
    assert second["hint_encoder"] == "paper"
    assert [row.method for row in table.runs] == ["controlnet", "concat"]
    assert table.header()[:3] == ["run", "method", "subset"]
    assert all(len(row.cells()) == len(table.header()) for row in table.runs)
    assert "| one | controlnet | all | mid_only:200,unlocked at 2e-06 |" in table.to_markdown()


def test_places_differ_by_what_lies_there(tmp_path):
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two", dataset="moved")
    assert compared(one, two).runs[0].settings == {}
    other = json.loads((two / "train.json").read_bytes())
    other["identity"]["base"] = "0123456789"
    (two / "train.json").write_text(json.dumps(other))
    assert [row.settings for row in compared(one, two).runs] == [
        {"base": "ba5e"},
        {"base": "01234567"},
    ]


def test_settings_from_before_there_was_one(tmp_path):
    runs = [make_run(tmp_path / name, schedule="constant") for name in ("one", "two")]
    settings = json.loads((runs[0] / "train.json").read_bytes())
    del settings["config"]["schedule"]
    (runs[0] / "train.json").write_text(json.dumps(settings))
    assert compared(*runs).runs[0].settings == {}


def test_what_to_bear_in_mind_is_noted(tmp_path):
    short = make_run(tmp_path / "short", LEVEL, rows=5000)
    assert compared(make_run(tmp_path / "one"), short).notes == (
        "short is probed up to step 400 of 800.",
        "short has seen 1,600 images, less than one epoch of its 5,000 rows.",
    )
    (note,) = compared(make_run(tmp_path / "a"), make_run(tmp_path / "b", baseline=0.2)).notes
    assert note.startswith("Without control the runs score 0.160 (a), 0.200 (b)")
    assert "the plot has the levels of a" in note


def test_labels_are_as_short_as_they_can_be(tmp_path):
    folders = [tmp_path / name for name in ("x/run", "y/run", "z/other")]
    assert list(label_folders(folders)) == ["x/run", "y/run", "z/other"]
    assert list(label_folders(folders[1:])) == ["run", "other"]
    with pytest.raises(UsageError, match=r"x/\.\./x/run is named twice"):
        label_folders([folders[0], tmp_path / "x/../x/run"])


def test_runs_of_other_batches_are_drawn_over_images(tmp_path):
    runs = {"one": make_run(tmp_path / "one"), "two": make_run(tmp_path / "two", batch=8)}
    over_steps = plot_runs(runs)
    over_images = plot_runs(runs, samples_per_step={"one": 4, "two": 8})
    assert decode_image(over_images).shape == decode_image(over_steps).shape
    assert over_images != over_steps
