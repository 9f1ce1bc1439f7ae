"""A run that ended anywhere goes on bit for bit, and only as what it was."""

import json
import logging
import signal
from pathlib import Path

import pytest

from tests.training.stepping import Killed, Steps, assert_same_state, contents, rows_of
from training.errors import CheckpointError, ResumeMismatch
from training.model.base import fingerprint
from training.run import checkpoint
from training.run.checkpoint import WEIGHTS, list_checkpoints, load_state
from training.run.folder import SETTINGS
from training.run.loop import run_phases, train_on
from training.run.session import open_session
from training.settings.phases import Phase
from training.watch.reports import StepReport


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_goes_on_bit_for_bit(make_config, view_type, tmp_path, workers):
    straight = make_config(out=str(tmp_path / "straight"), gradient_accumulation=2)
    unbroken = Steps()
    train_on(straight, rows_of(view_type()), unbroken)

    broken = make_config(out=str(tmp_path / "b"), gradient_accumulation=2, num_workers=workers)
    with pytest.raises(Killed):
        train_on(broken, rows_of(view_type()), Steps(die_at=3))  # a step past the checkpoint
    resumed = Steps()
    summary = train_on(broken, rows_of(view_type()), resumed)

    assert (summary.resumed_from, summary.steps_done, summary.steps) == (2, 2, 4)
    assert resumed.losses == {step: unbroken.losses[step] for step in (3, 4)}
    assert_same_state(tmp_path / "straight", tmp_path / "b")


PHASES = (
    Phase(trains="mid_only", until=2),
    Phase(trains="full", until=4),
    Phase(trains="unlocked", learning_rate=1e-3),
)


PHASED = {"steps": 6, "phases": PHASES, "checkpoint_every": 3, "ema": 0.5}


@pytest.fixture(scope="module")
def straight(config_of, view_type, tmp_path_factory):
    """A run through all phases that nothing ended: its folder and losses."""
    out = tmp_path_factory.mktemp("phases") / "straight"
    steps = Steps()
    train_on(config_of(out, **PHASED), rows_of(view_type()), steps)
    return out, steps.losses


# Each step of the run, with the rows read here and by two other processes.
@pytest.mark.parametrize(
    ("die_at", "workers"), [(1, 0), (2, 2), (3, 0), (3, 2), (4, 0), (4, 2), (5, 0)]
)
def test_phases_are_resumed_bit_for_bit(
    straight, make_config, view_type, tmp_path, die_at, workers
):
    folder, losses = straight
    broken = make_config(out=str(tmp_path / "b"), num_workers=workers, **PHASED)
    with pytest.raises(Killed):
        train_on(broken, rows_of(view_type()), Steps(die_at=die_at))
    resumed = Steps()
    train_on(broken, rows_of(view_type()), resumed)

    assert resumed.losses.items() <= losses.items()
    assert_same_state(folder, tmp_path / "b")
    for file in (WEIGHTS, f"unet/{WEIGHTS}"):
        one, other = (run / file for run in (folder, tmp_path / "b"))
        assert one.read_bytes() == other.read_bytes()


def test_each_phase_begins_at_a_checkpoint_and_keeps_the_optimizer(make_config, view_type):
    config = make_config(steps=6, phases=PHASES, checkpoint_every=100)
    rates = Steps()
    train_on(config, rows_of(view_type()), rates)
    checkpoints = {one.step: one for one in list_checkpoints(Path(config.out))}
    assert {step: one.position.phase for step, one in checkpoints.items()} == {
        0: 0,
        2: 1,
        4: 2,
        6: 2,
    }
    moments = {step: load_state(one).optimizer["state"] for step, one in checkpoints.items()}
    steps_of = [{int(state["step"]) for state in moments[step].values()} for step in (2, 4, 6)]
    assert steps_of == [{2}, {2, 4}, {2, 4, 6}]  # unlocked weights 2, zero convolutions 4, others 6
    assert "unet/" + WEIGHTS not in checkpoints[4].files
    assert "unet/" + WEIGHTS in checkpoints[6].files


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_in_hand(make_config, view_type, number):
    class Stopped(Exception):
        pass

    def handler(*_):
        raise Stopped

    def report(step: StepReport) -> None:
        if step.step == 1:
            signal.raise_signal(number)

    config = make_config(steps=9, checkpoint_every=100)
    before = signal.signal(number, handler)
    try:
        with pytest.raises(Stopped):
            train_on(config, rows_of(view_type()), report)
    finally:
        signal.signal(number, before)
    assert [one.step for one in list_checkpoints(Path(config.out))] == [0, 1]
    summary = train_on(config.model_copy(update={"steps": 2}), rows_of(view_type()), Steps())
    assert (summary.resumed_from, summary.steps_done) == (1, 1)


def test_a_run_may_grow_longer(make_config, view_type, tmp_path):
    train_on(make_config(out=str(tmp_path / "straight")), rows_of(view_type()), Steps())
    for steps in (2, 4):
        train_on(
            make_config(out=str(tmp_path / "grown"), steps=steps), rows_of(view_type()), Steps()
        )
    assert_same_state(tmp_path / "straight", tmp_path / "grown")
    assert (tmp_path / "straight" / WEIGHTS).read_bytes() == (
        tmp_path / "grown" / WEIGHTS
    ).read_bytes()


def test_a_finished_run_is_left_alone(make_config, view_type, caplog):
    config = make_config(steps=2)
    train_on(config, rows_of(view_type()), Steps())
    before = contents(Path(config.out))
    again = Steps()
    with caplog.at_level(logging.INFO, "training.run.loop"):
        summary = train_on(config, rows_of(view_type()), again)
    assert (summary.steps_done, summary.steps, summary.loss) == (0, 2, None)
    assert again.reports == []
    assert "all done, it has 2 of 2 steps" in caplog.text
    assert contents(Path(config.out)) == before


def test_what_a_killed_writer_left_is_ignored(make_config, view_type):
    config = make_config(steps=2)
    train_on(config, rows_of(view_type()), Steps())
    names = (".000003.tmp", ".000004.tmp", ".000001.old")  # written, written, deleted
    for name in names:
        torn = Path(config.out, "checkpoints", name)
        torn.mkdir()
        (torn / "config.json").write_text("{")
    summary = train_on(config.model_copy(update={"steps": 4}), rows_of(view_type()), Steps())
    assert (summary.resumed_from, summary.steps) == (2, 4)
    left = {path.name for path in Path(config.out, "checkpoints").iterdir()}
    assert left == {"000000", "000002", "000004"}


def test_a_commit_outlives_a_crash_of_the_machine(tmp_path, monkeypatch):
    """Names are synced before the rename, which is synced itself."""
    synced = []
    final = tmp_path / "checkpoints" / "000007"
    monkeypatch.setattr(
        checkpoint, "sync_folder", lambda folder: synced.append((folder.name, final.exists()))
    )
    folder = checkpoint.begin(tmp_path, 7)
    (folder / "unet").mkdir()
    (folder / "unet" / "config.json").write_text("{}")
    checkpoint.commit(folder, checkpoint.Position(step=7))
    assert sorted(synced) == [(".000007.tmp", False), ("checkpoints", True), ("unet", False)]


def test_a_run_killed_before_publishing_publishes(make_config, view_type):
    config = make_config(steps=2)
    train_on(config, rows_of(view_type()), Steps())
    settings = Path(config.out, "train.json")
    content = json.loads(settings.read_bytes())
    settings.write_text(json.dumps(content | {"published_step": None}))
    Path(config.out, WEIGHTS).unlink()
    train_on(config, rows_of(view_type()), Steps())
    assert Path(config.out, WEIGHTS).is_file()


def test_a_damaged_checkpoint_is_named(make_config, view_type):
    config = make_config(steps=2)
    train_on(config, rows_of(view_type()), Steps())
    weights = Path(config.out, "checkpoints", "000002", WEIGHTS)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"000002.* is damaged[\s\S]*Delete"):
        train_on(config.model_copy(update={"steps": 4}), rows_of(view_type()), Steps())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 2e-3}, "learning_rate: 0.001 there, 0.002 asked for"),
        ({"seed": 1}, "seed: 0 there, 1 asked for"),
        ({"batch_size": 3}, "samples_per_step: 2 there, 3 asked for"),
        ({"condition": "hed"}, "condition: 'canny' there, 'hed' asked for"),
    ],
)
def test_other_settings_do_not_resume(make_config, view_type, change, message):
    view = view_type(conditions=("canny", "hed"))
    train_on(make_config(steps=1), rows_of(view), Steps())
    with pytest.raises(ResumeMismatch, match=message):
        train_on(make_config(steps=1, **change), rows_of(view), Steps())


def test_other_data_does_not_resume(make_config, view_type):
    train_on(make_config(steps=1), rows_of(view_type()), Steps())
    with pytest.raises(ResumeMismatch, match="view: 'f00d' there, 'beef' asked for"):
        train_on(make_config(steps=1), rows_of(view_type(fingerprint="beef")), Steps())
    with pytest.raises(ResumeMismatch, match="dataset: 'da7a' there, 'other' asked for"):
        train_on(make_config(steps=1), rows_of(view_type(), dataset="other"), Steps())


def test_the_same_samples_in_other_batches_resume(make_config, view_type):
    train_on(make_config(steps=1), rows_of(view_type()), Steps())
    other = make_config(steps=2, batch_size=1, gradient_accumulation=2)
    assert train_on(other, rows_of(view_type()), Steps()).resumed_from == 1


def test_a_finished_run_takes_another_phase(make_config, view_type, tmp_path):
    full = (Phase(trains="full", until=4), Phase(trains="unlocked"))
    straight = make_config(out=str(tmp_path / "straight"), steps=6, phases=full)
    train_on(straight, rows_of(view_type()), Steps())
    train_on(make_config(out=str(tmp_path / "grown")), rows_of(view_type()), Steps())
    grown = make_config(out=str(tmp_path / "grown"), steps=6, phases=full)
    assert train_on(grown, rows_of(view_type()), Steps()).steps_done == 2
    assert_same_state(tmp_path / "straight", tmp_path / "grown")
    for other in (full[1:], (Phase(trains="full", until=3), Phase(trains="unlocked"))):
        again = make_config(out=str(tmp_path / "grown"), steps=6, phases=other)
        with pytest.raises(ResumeMismatch, match="phases"):
            train_on(again, rows_of(view_type()), Steps())


def test_a_takedown_does_not_end_a_run(make_config, view_type):
    train_on(make_config(steps=2), rows_of(view_type(rows=9)), Steps())
    less = rows_of(view_type(rows=7, fingerprint="less"), removed=2)
    assert train_on(make_config(steps=4), less, Steps()).steps_done == 2
    lost = rows_of(view_type(rows=6, fingerprint="lost"), removed=2)
    with pytest.raises(ResumeMismatch, match="view"):
        train_on(make_config(steps=6), lost, Steps())


def test_a_run_of_before_goes_on_as_it_did(make_config, view_type):
    config = make_config(steps=2, max_grad_norm=0.0)
    train_on(config, rows_of(view_type()), Steps())
    path = Path(config.out, SETTINGS)
    settings = json.loads(path.read_bytes())
    for name in ("max_grad_norm", "schedule", "held_out", "aspect_buckets", "crop", "flip"):
        settings["config"].pop(name), settings["identity"].pop(name)
    path.write_text(json.dumps(settings))
    assert train_on(make_config(steps=4), rows_of(view_type()), Steps()).steps_done == 2
    with pytest.raises(ResumeMismatch, match=r"max_grad_norm: 0\.0 there, 0\.5 asked for"):
        train_on(make_config(steps=6, max_grad_norm=0.5), rows_of(view_type()), Steps())


@pytest.mark.parametrize("scope", ["decoder", "all"])
def test_an_unlocked_average_is_resumed_exactly_and_the_base_stays(
    make_config, view_type, tmp_path, scope
):
    phases = (Phase(trains="full", until=1), Phase(trains="unlocked", scope=scope))
    settings = {"phases": phases, "ema": 0.9, "steps": 4, "checkpoint_every": 1}
    session = open_session(
        make_config(out=str(tmp_path / "straight"), **settings), rows_of(view_type())
    )
    before = fingerprint(session.base.networks)
    run_phases(session)
    assert fingerprint(session.base.networks) == before
    for steps in (2, 3, 4):
        part = make_config(out=str(tmp_path / "parts"), **{**settings, "steps": steps})
        train_on(part, rows_of(view_type()), Steps())
    one, other = (list_checkpoints(tmp_path / run)[-1] for run in ("straight", "parts"))
    weights = [name for name in one.files if name.endswith(".safetensors")]
    assert len(weights) == 4  # ControlNet and UNet, as they are and averaged
    assert {one.files[name] for name in weights} == {other.files[name] for name in weights}


def test_another_method_is_told_as_another_training(make_config, view_type):
    train_on(make_config(phases=PHASES, steps=1), rows_of(view_type()), Steps())
    with pytest.raises(ResumeMismatch, match="method: 'controlnet' there, 'concat' asked for"):
        train_on(make_config(method="concat", steps=1), rows_of(view_type()), Steps())
