"""Plots from what a run recorded."""

from pathlib import Path

import pytest

from catalog.images import decode_image
from training.errors import TrainingError
from training.measure.adherence import References
from training.measure.convergence import Convergence
from training.watch.run_plots import plot_runs, run_convergence, write_run_plots
from training.watch.signals import (
    LossRecord,
    ProbeRecord,
    ReferenceRecord,
    losses,
    probes,
    write_references,
)

SCORES = {0: 0.16, 200: 0.16, 400: 0.50, 600: 0.75, 800: 0.83}
REFERENCES = References(baseline=0.16, real=0.93, reconstruction=0.9)


def make_run(folder: Path, *, keys: tuple[str, ...] = ("a",), gap: float | None = 0.1) -> Path:
    folder.mkdir()
    record = ReferenceRecord(
        metric="Canny F1 (1 px)", higher_is_better=True, keys=keys, references=REFERENCES
    )
    write_references(folder, record)
    for step, score in SCORES.items():
        probes(folder).append(
            ProbeRecord(
                step=step,
                per_sample=(score,),
                adherence=score,
                normalised=REFERENCES.normalised(score),
                condition_gap=gap,
            )
        )
    return folder


def test_a_run_is_plotted_as_far_as_it_is_recorded(tmp_path):
    assert write_run_plots(tmp_path) == []
    losses(tmp_path).append(LossRecord(step=10, loss=0.28, images_per_second=1.0))
    assert [path.name for path in write_run_plots(tmp_path)] == ["loss.png"]
    run = make_run(tmp_path / "run", gap=None)
    assert [path.name for path in write_run_plots(run)] == ["adherence.png"]
    full = make_run(tmp_path / "full")
    written = write_run_plots(full)
    assert [path.relative_to(full).as_posix() for path in written] == [
        "plots/condition_gap.png",
        "plots/adherence.png",
    ]
    assert all(decode_image(path.read_bytes()).shape == (576, 960, 3) for path in written)


def test_the_convergence_of_a_run(tmp_path):
    found = run_convergence(make_run(tmp_path / "run"))
    assert isinstance(found, Convergence)
    assert (found.before, found.step) == (200, 400)
    assert run_convergence(tmp_path) is None


def test_runs_on_the_same_samples_share_a_plot(tmp_path):
    runs = {name: make_run(tmp_path / name) for name in ("one", "two")}
    assert decode_image(plot_runs(runs, title="two runs")).shape == (576, 960, 3)
    runs["other"] = make_run(tmp_path / "other", keys=("b",))
    with pytest.raises(TrainingError, match="other was probed on other held-out samples than one"):
        plot_runs(runs)
    with pytest.raises(TrainingError, match="no probes of adherence"):
        plot_runs({"bare": tmp_path})
