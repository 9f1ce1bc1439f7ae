import json
import logging
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.errors import CheckpointError, DivergedError, ResumeMismatch, TrainingError
from training.model.base import fingerprint, load_base
from training.model.controlnet import new_controlnet
from training.run.checkpoint import WEIGHTS, list_checkpoints, load_state
from training.run.loop import run_phase, train_on
from training.run.session import load_trained, open_session
from training.run.stopping import StopRequest
from training.settings.phases import Phase
from training.watch.reports import StepReport

DATASET = "da7a"


class Killed(Exception):
    pass


class Steps:
    """Collects reports, and ends the run after `die_at` steps."""

    def __init__(self, die_at: int | None = None) -> None:
        self.reports: list[StepReport] = []
        self.die_at = die_at

    def __call__(self, report: StepReport) -> None:
        self.reports.append(report)
        if report.step == self.die_at:
            raise Killed

    @property
    def losses(self) -> dict[int, float]:
        return {report.step: report.loss for report in self.reports}


def contents(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}


def assert_same_state(left: Path, right: Path) -> None:
    one, other = list_checkpoints(left)[-1], list_checkpoints(right)[-1]
    assert (one.step, one.position) == (other.step, other.position)
    assert one.files[WEIGHTS] == other.files[WEIGHTS]
    torch.testing.assert_close(
        load_state(one).optimizer, load_state(other).optimizer, rtol=0, atol=0
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_goes_on_bit_for_bit(make_config, view_type, tmp_path, workers):
    straight = make_config(out=str(tmp_path / "straight"), gradient_accumulation=2)
    unbroken = Steps()
    train_on(straight, view_type(), DATASET, unbroken)

    broken = make_config(out=str(tmp_path / "b"), gradient_accumulation=2, num_workers=workers)
    with pytest.raises(Killed):
        train_on(broken, view_type(), DATASET, Steps(die_at=3))  # a step past the checkpoint
    resumed = Steps()
    summary = train_on(broken, view_type(), DATASET, resumed)

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
    train_on(config_of(out, **PHASED), view_type(), DATASET, steps)
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
        train_on(broken, view_type(), DATASET, Steps(die_at=die_at))
    resumed = Steps()
    train_on(broken, view_type(), DATASET, resumed)

    assert resumed.losses.items() <= losses.items()
    assert_same_state(folder, tmp_path / "b")
    for file in (WEIGHTS, f"unet/{WEIGHTS}"):
        one, other = (run / file for run in (folder, tmp_path / "b"))
        assert one.read_bytes() == other.read_bytes()


def test_each_phase_begins_at_a_checkpoint_and_keeps_the_optimizer(make_config, view_type):
    config = make_config(steps=6, phases=PHASES, checkpoint_every=100)
    rates = Steps()
    train_on(config, view_type(), DATASET, rates)
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


def test_a_warmup_raises_the_rate_by_steps(make_config, view_type):
    steps = Steps()
    train_on(make_config(warmup=4, steps=5), view_type(), DATASET, steps)
    rates = [report.learning_rate for report in steps.reports]
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3])


def test_old_checkpoints_are_deleted(make_config, view_type):
    config = make_config(steps=5, checkpoint_every=1, keep_last=2)
    train_on(config, view_type(), DATASET, Steps())
    assert [one.step for one in list_checkpoints(Path(config.out))] == [4, 5]


def test_an_average_is_what_is_published(make_config, view_type):
    config = make_config(ema=0.9)
    train_on(config, view_type(), DATASET, Steps())
    newest = list_checkpoints(Path(config.out))[-1]
    published = Path(config.out, WEIGHTS).read_bytes()
    assert published == (newest.folder / "average" / WEIGHTS).read_bytes()
    assert published != (newest.folder / WEIGHTS).read_bytes()


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
            train_on(config, view_type(), DATASET, report)
    finally:
        signal.signal(number, before)
    assert [one.step for one in list_checkpoints(Path(config.out))] == [0, 1]
    summary = train_on(config.model_copy(update={"steps": 2}), view_type(), DATASET, Steps())
    assert (summary.resumed_from, summary.steps_done) == (1, 1)


def test_gradient_checkpointing_changes_no_loss(make_config, view_type, tmp_path):
    plain, saving = Steps(), Steps()
    train_on(make_config(out=str(tmp_path / "a")), view_type(), DATASET, plain)
    config = make_config(out=str(tmp_path / "b"), gradient_checkpointing=True)
    train_on(config, view_type(), DATASET, saving)
    assert saving.losses == pytest.approx(plain.losses, rel=1e-5)


def test_an_optimizer_that_is_not_installed_is_named(make_config, view_type):
    with pytest.raises(TrainingError, match="pip install bitsandbytes"):
        train_on(make_config(optimizer="adamw_8bit"), view_type(), DATASET, Steps())


def test_a_run_may_grow_longer(make_config, view_type, tmp_path):
    train_on(make_config(out=str(tmp_path / "straight")), view_type(), DATASET, Steps())
    for steps in (2, 4):
        train_on(
            make_config(out=str(tmp_path / "grown"), steps=steps), view_type(), DATASET, Steps()
        )
    assert_same_state(tmp_path / "straight", tmp_path / "grown")
    assert (tmp_path / "straight" / WEIGHTS).read_bytes() == (
        tmp_path / "grown" / WEIGHTS
    ).read_bytes()


def test_a_finished_run_is_left_alone(make_config, view_type, caplog):
    config = make_config(steps=2)
    train_on(config, view_type(), DATASET, Steps())
    before = contents(Path(config.out))
    again = Steps()
    with caplog.at_level(logging.INFO, "training.run.loop"):
        summary = train_on(config, view_type(), DATASET, again)
    assert (summary.steps_done, summary.steps, summary.loss) == (0, 2, None)
    assert again.reports == []
    assert "all done, it has 2 of 2 steps" in caplog.text
    assert contents(Path(config.out)) == before


def test_what_a_killed_writer_left_is_ignored(make_config, view_type):
    config = make_config(steps=2)
    train_on(config, view_type(), DATASET, Steps())
    torn = Path(config.out, "checkpoints", ".000004.tmp")
    torn.mkdir()
    (torn / "config.json").write_text("{")
    summary = train_on(config.model_copy(update={"steps": 4}), view_type(), DATASET, Steps())
    assert (summary.resumed_from, summary.steps) == (2, 4)
    assert not torn.exists()


def test_a_run_killed_before_publishing_publishes(make_config, view_type):
    config = make_config(steps=2)
    train_on(config, view_type(), DATASET, Steps())
    settings = Path(config.out, "train.json")
    content = json.loads(settings.read_bytes())
    settings.write_text(json.dumps(content | {"published_step": None}))
    Path(config.out, WEIGHTS).unlink()
    train_on(config, view_type(), DATASET, Steps())
    assert Path(config.out, WEIGHTS).is_file()


def test_a_damaged_checkpoint_is_named(make_config, view_type):
    config = make_config(steps=2)
    train_on(config, view_type(), DATASET, Steps())
    weights = Path(config.out, "checkpoints", "000002", WEIGHTS)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"000002.* is damaged[\s\S]*Delete"):
        train_on(config.model_copy(update={"steps": 4}), view_type(), DATASET, Steps())


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
    train_on(make_config(steps=1), view, DATASET, Steps())
    with pytest.raises(ResumeMismatch, match=message):
        train_on(make_config(steps=1, **change), view, DATASET, Steps())


def test_other_data_does_not_resume(make_config, view_type):
    train_on(make_config(steps=1), view_type(), DATASET, Steps())
    with pytest.raises(ResumeMismatch, match="view: 'f00d' there, 'beef' asked for"):
        train_on(make_config(steps=1), view_type(fingerprint="beef"), DATASET, Steps())
    with pytest.raises(ResumeMismatch, match="dataset: 'da7a' there, 'other' asked for"):
        train_on(make_config(steps=1), view_type(), "other", Steps())


def test_the_same_samples_in_other_batches_resume(make_config, view_type):
    train_on(make_config(steps=1), view_type(), DATASET, Steps())
    other = make_config(steps=2, batch_size=1, gradient_accumulation=2)
    assert train_on(other, view_type(), DATASET, Steps()).resumed_from == 1


def test_accumulated_gradients_are_those_of_the_whole_batch(make_config, view_type, tmp_path):
    whole, parts = Steps(), Steps()
    settings = make_config(out=str(tmp_path / "a"), steps=2, batch_size=4)
    train_on(settings, view_type(), DATASET, whole)
    in_parts = {"out": str(tmp_path / "b"), "batch_size": 1, "gradient_accumulation": 4}
    train_on(settings.model_copy(update=in_parts), view_type(), DATASET, parts)
    assert len(parts.reports) == len(whole.reports) == 2
    assert parts.losses == pytest.approx(whole.losses, rel=1e-5)
    one, other = (load_file(tmp_path / run / WEIGHTS) for run in ("a", "b"))
    apart = max(float((one[name] - other[name]).abs().max()) for name in one)
    assert apart < 1e-3  # one of the two steps; AdamW magnifies rounding where gradients are tiny


def test_the_run_folder_is_a_diffusers_model(make_config, view_type):
    config = make_config()
    train_on(config, view_type(), DATASET, Steps())
    controlnet = ControlNetModel.from_pretrained(config.out)
    assert controlnet.controlnet_mid_block.weight.abs().max() > 0
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(
        config.base, controlnet=controlnet, safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    hint = np.zeros((1, 64, 64, 3), np.float32)
    image = pipeline("a cat", hint, num_inference_steps=2, output_type="np").images[0]
    assert image.shape == (64, 64, 3)


def test_a_run_keeps_its_untrained_network_and_its_settings(make_config, view_type, base):
    config = make_config(steps=2)
    train_on(config, view_type(), DATASET, Steps())
    assert [one.step for one in list_checkpoints(Path(config.out))] == [0, 2]
    untrained = ControlNetModel.from_pretrained(Path(config.out, "checkpoints", "000000"))
    assert fingerprint([untrained]) == fingerprint([new_controlnet(base, seed=0)])
    settings = json.loads(Path(config.out, "train.json").read_bytes())
    assert settings["config"] == config.model_dump(mode="json")
    assert settings["identity"]["view"] == "f00d"
    assert settings["identity"]["base"] == fingerprint(base.networks)
    assert settings["versions"]["torch"] == torch.__version__.split("+")[0]


def test_only_the_controlnet_learns(make_config, view_type, base_folder):
    config = make_config(steps=2)
    session = open_session(config, view_type(), DATASET)
    trained = load_trained(session)
    locked = fingerprint(session.base.networks)
    before = fingerprint([trained.denoiser.controlnet])
    run_phase(session, trained, [], StopRequest())
    assert (
        fingerprint(session.base.networks) == locked == fingerprint(load_base(base_folder).networks)
    )
    assert fingerprint([trained.denoiser.controlnet]) != before


def test_losses_and_rates_are_logged(make_config, view_type, caplog):
    config = make_config(log_every=2)
    with caplog.at_level(logging.INFO, "training.watch.reports"):
        train_on(config, view_type(), DATASET)
    lines = [record.message for record in caplog.records if record.name == "training.watch.reports"]
    assert [line.split(":")[0] for line in lines] == ["step 2 of 4", "step 4 of 4"]
    events = EventAccumulator(str(Path(config.out, "logs"))).Reload()
    assert [event.step for event in events.Scalars("loss")] == [2, 4]
    assert f"loss {events.Scalars('loss')[1].value:.4f}" in lines[1]
    assert events.Scalars("learning_rate")[0].value == pytest.approx(1e-3)
    assert events.Scalars("images_per_second")[0].value > 0


def test_bf16_trains_and_keeps_its_weights_in_fp32(make_config, view_type):
    config = make_config(steps=2, mixed_precision="bf16")
    steps = Steps()
    train_on(config, view_type(), DATASET, steps)
    assert all(np.isfinite(loss) for loss in steps.losses.values())
    assert {w.dtype for w in load_file(Path(config.out, WEIGHTS)).values()} == {torch.float32}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_fp16_without_a_gpu_is_refused(make_config, view_type):
    with pytest.raises(TrainingError, match="needs a CUDA device"):
        train_on(make_config(mixed_precision="fp16"), view_type(), DATASET)


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_saved(make_config, view_type):
    config = make_config(learning_rate=1e30, checkpoint_every=1)
    with pytest.raises(DivergedError, match=r"the loss is .* at step 2"):
        train_on(config, view_type(), DATASET, Steps())
    assert [one.step for one in list_checkpoints(Path(config.out))] == [0, 1]


def test_a_folder_with_something_else_is_not_touched(make_config, view_type, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="holds something else"):
        train_on(make_config(out=str(tmp_path)), view_type(), DATASET)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_remote_run_folder_is_refused(make_config, view_type):
    with pytest.raises(TrainingError, match="local disk"):
        train_on(make_config(out="s3://bucket/run"), view_type(), DATASET)
