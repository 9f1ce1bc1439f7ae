"""The loop: what learns, at which rate, what a run's folder holds."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from diffusers.models.resnet import ResnetBlock2D
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.stepping import Steps, forget_accelerate, rows_of
from training.errors import DivergedError, TrainingError
from training.model.base import fingerprint, load_base
from training.model.controlnet import new_controlnet
from training.run.checkpoint import WEIGHTS, list_checkpoints, load_state
from training.run.loop import run_phase, train_on
from training.run.session import load_trained, open_session
from training.run.stopping import StopRequest


def test_a_warmup_raises_the_rate_by_steps(make_config, view_type):
    steps = Steps()
    train_on(make_config(warmup=4, steps=5), rows_of(view_type()), steps)
    rates = [report.learning_rate for report in steps.reports]
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3])


def test_old_checkpoints_are_deleted(make_config, view_type):
    config = make_config(steps=5, checkpoint_every=1, keep_last=2)
    train_on(config, rows_of(view_type()), Steps())
    assert [one.step for one in list_checkpoints(Path(config.out))] == [4, 5]


def test_an_average_is_what_is_published(make_config, view_type):
    config = make_config(ema=0.9)
    train_on(config, rows_of(view_type()), Steps())
    newest = list_checkpoints(Path(config.out))[-1]
    published = Path(config.out, WEIGHTS).read_bytes()
    assert published == (newest.folder / "average" / WEIGHTS).read_bytes()
    assert published != (newest.folder / WEIGHTS).read_bytes()


def test_gradient_checkpointing_computes_again_and_changes_no_loss(
    make_config, view_type, tmp_path, monkeypatch
):
    forwards, forward = [], ResnetBlock2D.forward
    monkeypatch.setattr(
        ResnetBlock2D,
        "forward",
        lambda *given, **named: forwards.append(1) or forward(*given, **named),
    )
    plain, saving = Steps(), Steps()
    train_on(make_config(out=str(tmp_path / "a"), steps=2), rows_of(view_type()), plain)
    once = len(forwards)
    config = make_config(out=str(tmp_path / "b"), steps=2, gradient_checkpointing=True)
    train_on(config, rows_of(view_type()), saving)
    assert len(forwards) - once > once
    assert saving.losses == pytest.approx(plain.losses, rel=1e-5)


def test_an_optimizer_that_is_not_installed_is_named(make_config, view_type):
    with pytest.raises(TrainingError, match="pip install bitsandbytes"):
        train_on(make_config(optimizer="adamw_8bit"), rows_of(view_type()), Steps())


def test_accumulated_gradients_are_those_of_the_whole_batch(make_config, view_type, tmp_path):
    whole, parts = Steps(), Steps()
    settings = make_config(out=str(tmp_path / "a"), steps=2, batch_size=4)
    train_on(settings, rows_of(view_type()), whole)
    in_parts = {"out": str(tmp_path / "b"), "batch_size": 1, "gradient_accumulation": 4}
    train_on(settings.model_copy(update=in_parts), rows_of(view_type()), parts)
    assert len(parts.reports) == len(whole.reports) == 2
    assert parts.losses == pytest.approx(whole.losses, rel=1e-5)
    one, other = (load_file(tmp_path / run / WEIGHTS) for run in ("a", "b"))
    apart = max(float((one[name] - other[name]).abs().max()) for name in one)
    assert apart < 1e-3  # one of the two steps; AdamW magnifies rounding where gradients are tiny


def test_the_run_folder_is_a_diffusers_model(make_config, view_type):
    config = make_config()
    train_on(config, rows_of(view_type()), Steps())
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
    train_on(config, rows_of(view_type()), Steps())
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
    session = open_session(config, rows_of(view_type()))
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
        train_on(config, rows_of(view_type()))
    lines = [record.message for record in caplog.records if record.name == "training.watch.reports"]
    assert [line.split(":")[0] for line in lines] == ["step 2 of 4", "step 4 of 4"]
    events = EventAccumulator(str(Path(config.out, "logs"))).Reload()
    assert [event.step for event in events.Scalars("loss")] == [2, 4]
    assert f"loss {events.Scalars('loss')[1].value:.4f}" in lines[1]
    assert events.Scalars("learning_rate")[0].value == pytest.approx(1e-3)
    assert events.Scalars("images_per_second")[0].value > 0


def test_bf16_is_near_fp32_and_keeps_its_weights_in_fp32(make_config, view_type, tmp_path):
    exact, low = Steps(), Steps()
    train_on(make_config(out=str(tmp_path / "exact"), steps=2), rows_of(view_type()), exact)
    forget_accelerate()
    config = make_config(steps=2, mixed_precision="bf16")
    train_on(config, rows_of(view_type()), low)
    assert low.losses == pytest.approx(exact.losses, rel=0.02)
    assert low.losses != exact.losses  # it was not ignored
    assert {w.dtype for w in load_file(Path(config.out, WEIGHTS)).values()} == {torch.float32}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_fp16_without_a_gpu_is_refused(make_config, view_type):
    with pytest.raises(TrainingError, match="needs a CUDA device"):
        train_on(make_config(mixed_precision="fp16"), rows_of(view_type()))


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_saved(make_config, view_type):
    config = make_config(learning_rate=1e30, checkpoint_every=1)
    with pytest.raises(DivergedError, match=r"the loss is .* at step 2"):
        train_on(config, rows_of(view_type()), Steps())
    assert [one.step for one in list_checkpoints(Path(config.out))] == [0, 1]


def test_a_folder_with_something_else_is_not_touched(make_config, view_type, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="holds something else"):
        train_on(make_config(out=str(tmp_path)), rows_of(view_type()))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_remote_run_folder_is_refused(make_config, view_type):
    with pytest.raises(TrainingError, match="local disk"):
        train_on(make_config(out="s3://bucket/run"), rows_of(view_type()))


def test_gradients_are_scaled_down_to_their_norm(make_config, view_type, tmp_path):
    norms = {}
    for limit in (0.0, 1e-4):
        config = make_config(out=str(tmp_path / str(limit)), steps=1, max_grad_norm=limit)
        train_on(config, rows_of(view_type()), Steps())
        state = load_state(list_checkpoints(Path(config.out))[-1]).optimizer["state"]
        first = [moment["exp_avg"] for moment in state.values()]
        norms[limit] = float(sum(one.square().sum() for one in first) ** 0.5)
    assert norms[1e-4] == pytest.approx(0.1 * 1e-4, rel=0.05)  # AdamW's first moment: 0.1 of them
    assert norms[0.0] > 2 * norms[1e-4]
