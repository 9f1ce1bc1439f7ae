"""Probes watch a run: they change nothing of it, find its convergence, and never end it."""

import json

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.probing import SPEC, Photographs
from tests.training.stepping import Killed, Steps, assert_same_state, forget_accelerate, rows_of
from training.errors import TrainingError
from training.run import probing
from training.run.checkpoint import list_checkpoints
from training.run.folder import trained_as
from training.run.loop import train_on
from training.settings.phases import Phase
from training.watch.probe import RunProbe
from training.watch.signals import losses, probes

CONVERGED = (Phase(trains="mid_only", until="converged"), Phase(trains="full"))


@pytest.fixture
def probed(make_config):
    """Settings of a run with probes of two pictures, in one step each."""

    def make(**changes):
        settings = {"held_out": 2, "probe_every": 2, "probe_steps": 1, "probe_guidance": 1.0}
        return make_config(**{**settings, **changes})

    return make


@pytest.fixture
def rows():
    return rows_of(Photographs([64] * 6))


class Sudden:
    """Stands in for the scores of a run: obeys from a step on."""

    def __init__(self, monkeypatch, at: int) -> None:
        measure = RunProbe.measure

        def scored(probe, step, sample, loss, *, batch_size):
            record = measure(probe, step, sample, loss, batch_size=batch_size)
            path = probe._run / "signals" / "probes.jsonl"
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            for line in lines:
                line["normalised"] = 0.9 if line["step"] >= at else 0.01
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
            return record

        monkeypatch.setattr(RunProbe, "measure", scored)


def test_a_run_is_probed_at_its_start_on_the_way_and_at_its_end(probed, rows, tmp_path):
    config = probed(steps=5)
    train_on(config, rows, Steps(), spec=SPEC)
    run = tmp_path / "run"
    assert [record.step for record in probes(run).read()] == [0, 2, 4, 5]
    assert [record.step for record in losses(run).read()] == [1, 2, 3, 4, 5]
    assert {path.name for path in (run / "plots").iterdir()} >= {"adherence.png", "loss.png"}
    held = json.loads((run / "held_out.json").read_bytes())["keys"]
    pictures = run / "signals" / "pictures" / "000005"
    assert {path.stem for path in pictures.iterdir()} == set(held)
    shown = EventAccumulator(str(run / "logs")).Reload()
    assert [event.step for event in shown.Scalars("adherence")] == [0, 2, 4, 5]
    names = shown.Tags()["images"]
    assert {name.partition("/")[2] for name in names} == {key[:8] for key in held}
    assert [event.step for event in shown.Images(names[0])] == [0, 2, 4, 5]


@pytest.mark.parametrize("ema", [None, 0.9])
def test_probes_change_nothing_of_the_training(probed, rows, tmp_path, ema):
    plain, watched = Steps(), Steps()
    alone = probed(out=str(tmp_path / "alone"), probe_every=0, ema=ema)
    train_on(alone, rows, plain, spec=SPEC)
    train_on(probed(out=str(tmp_path / "watched"), ema=ema), rows, watched, spec=SPEC)
    assert watched.losses == plain.losses
    assert_same_state(tmp_path / "alone", tmp_path / "watched")


def test_a_killed_run_repeats_no_probe(probed, rows, tmp_path):
    config = probed(steps=4, checkpoint_every=2)
    with pytest.raises(Killed):
        train_on(config, rows, Steps(die_at=3), spec=SPEC)
    train_on(config, rows, Steps(), spec=SPEC)
    assert [record.step for record in probes(tmp_path / "run").read()] == [0, 2, 4]


def test_a_phase_ends_where_the_run_converged(probed, rows, tmp_path, monkeypatch):
    Sudden(monkeypatch, at=4)
    config = probed(steps=7, phases=CONVERGED, checkpoint_every=100)
    train_on(config, rows, Steps(), spec=SPEC)
    held = {one.step: one.position for one in list_checkpoints(tmp_path / "run")}
    assert sorted(held) == [0, 6, 7]  # the rise must be kept by a second probe
    assert (held[6].phase, held[6].phase_begun, held[6].trained_phase) == (1, 6, 0)
    assert held[7].trained_phase == 1
    folders = {one.step: one.folder for one in list_checkpoints(tmp_path / "run")}
    assert [trained_as(folders[step]) for step in (6, 7)] == ["mid_only", "full"]
    assert trained_as(tmp_path / "run") == "full"


def test_what_the_convergence_comes_behind_is_skipped(probed, rows, tmp_path, monkeypatch):
    Sudden(monkeypatch, at=4)
    phases = (CONVERGED[0], Phase(trains="full", until=5), Phase(trains="unlocked"))
    train_on(probed(steps=7, phases=phases, checkpoint_every=100), rows, Steps(), spec=SPEC)
    assert list_checkpoints(tmp_path / "run")[-1].position.trained_phase == 2


def test_a_probe_that_fails_is_told_and_left_out(probed, rows, monkeypatch, caplog, tmp_path):
    def broken(*_, **__):
        raise ZeroDivisionError("no picture")

    monkeypatch.setattr(RunProbe, "measure", broken)
    assert train_on(probed(steps=2), rows, Steps(), spec=SPEC).steps == 2
    assert "the probe after step 2 failed and is left out: no picture" in caplog.text


def test_probes_that_cannot_be_prepared_do_not_end_a_training(
    probed, rows, monkeypatch, caplog, tmp_path
):
    """A detector that fails on a photograph; memory that does not suffice for one picture."""

    def broken(*_, **__):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(probing, "prepare_run_probe", broken)
    assert train_on(probed(steps=1), rows, Steps(), spec=SPEC).steps == 1
    assert "probes could not be prepared" in caplog.text
    forget_accelerate()
    waiting = probed(steps=1, phases=CONVERGED, out=str(tmp_path / "waiting"))
    with pytest.raises(TrainingError, match="there are no probes: OutOfMemoryError: full"):
        train_on(waiting, rows, Steps(), spec=SPEC)


def test_nothing_to_probe_is_told_and_refused_where_a_phase_waits_for_it(
    probed, rows, view_type, caplog, tmp_path
):
    with caplog.at_level("INFO", probing.__name__):
        train_on(probed(steps=1), rows, Steps())
    assert "no probes: the detector of canny is not known" in caplog.text
    waiting = probed(steps=1, phases=CONVERGED, out=str(tmp_path / "waiting"))
    with pytest.raises(TrainingError, match="the detector of canny is not known"):
        train_on(waiting, rows, Steps())
