"""One step of ours against the computation of diffusers' examples/controlnet/train_controlnet.py.

That script draws from torch's global generator and we draw by sample, so it is given our draws
here. Its steps are written down again, with nothing of ours in them; it is the script of diffusers
0.40. It clips the gradient's norm after that, which we do not: gradients are compared before.
"""

import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ControlNetModel, DDPMScheduler, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from catalog.images import decode_image
from tests.training.stepping import rows_of
from training.data.order import row_of
from training.model.base import load_base
from training.model.controlnet import new_controlnet
from training.model.objective import Draws, draw
from training.run.checkpoint import list_checkpoints, load_state
from training.run.loop import train_on
from training.settings.config import TrainConfig
from training.watch.reports import StepReport

INDICES = (0, 1, 2)
BF16 = 2**-8  # relative spacing of its numbers
FIRST_MOMENT = 0.1  # share of the first gradient in AdamW's moving average


@pytest.fixture(scope="module")
def velocity_folder(whole_base_folder, tmp_path_factory) -> str:
    """A base like SD 2.1 (768 px): it predicts velocity, and its attention projects linearly."""
    folder = tmp_path_factory.mktemp("bases") / "velocity"
    shutil.copytree(whole_base_folder, folder)
    _change(folder / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    config = {
        **UNet2DConditionModel.load_config(folder / "unet"),
        "use_linear_projection": True,
        "attention_head_dim": [1, 2, 4, 4],
        "upcast_attention": True,
    }
    torch.manual_seed(0)
    UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")
    _change(folder / "text_encoder" / "config.json", hidden_act="gelu")
    return str(folder)


def _change(path: Path, **values: str) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **values}))


@pytest.fixture(params=["epsilon", "v_prediction"])
def any_folder(request, whole_base_folder, velocity_folder) -> str:
    return whole_base_folder if request.param == "epsilon" else velocity_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    images: list[np.ndarray]
    hints: list[np.ndarray]
    captions: list[str]


def samples_of(view, seed: int) -> Samples:
    read = [view.read(row_of(seed, index, len(view))) for index in INDICES]
    return Samples(
        images=[decode_image(sample.image) for sample in read],
        hints=[decode_image(sample.conditions["canny"]) for sample in read],
        captions=[sample.caption for sample in read],
    )


def as_tensor(images: list[np.ndarray]) -> torch.Tensor:
    rows = [np.asarray(Image.fromarray(image), np.float32) / 255 for image in images]
    return torch.stack([torch.from_numpy(row).movedim(-1, 0) for row in rows])


def reference_loss(
    folder: str,
    controlnet: ControlNetModel,
    samples: Samples,
    draws: Draws,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Return the loss as diffusers' script computes it, with what is locked in `dtype`."""
    tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder")
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae")
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    for locked in (text_encoder, vae, unet):
        locked.to(dtype)

    pixels = ((as_tensor(samples.images) - 0.5) / 0.5).to(dtype)
    posterior = vae.encode(pixels).latent_dist
    sampled = posterior.mean + posterior.std * draws.posterior.to(dtype)
    latents = sampled * vae.config.scaling_factor
    noise = draws.noise.to(dtype)
    noisy = scheduler.add_noise(latents.float(), noise.float(), draws.timesteps).to(dtype)
    ids = tokenizer(
        samples.captions,
        max_length=tokenizer.model_max_length,
        padding="max_length",
        truncation=True,
        return_tensors="pt",
    ).input_ids
    text = text_encoder(ids, return_dict=False)[0]
    hints = as_tensor(samples.hints).to(dtype)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        residuals = controlnet(noisy, draws.timesteps, text, hints)
    predicted = unet(
        noisy,
        draws.timesteps,
        text,
        down_block_additional_residuals=[one.to(dtype) for one in residuals.down_block_res_samples],
        mid_block_additional_residual=residuals.mid_block_res_sample.to(dtype),
    ).sample
    wanted = noise
    if scheduler.config.prediction_type == "v_prediction":
        wanted = scheduler.get_velocity(latents, noise, draws.timesteps)
    return F.mse_loss(predicted.float(), wanted.float(), reduction="mean")


def opened_controlnet(folder: str) -> ControlNetModel:
    """Return a ControlNet whose zero layers are zero no more, so that every weight counts."""
    controlnet = new_controlnet(load_base(folder), seed=0)
    generator = torch.Generator().manual_seed(7)
    for weight in controlnet.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.1, generator=generator)
    return controlnet


def first_step(controlnet, folder, make_config, view_type, tmp_path) -> tuple[TrainConfig, float]:
    """Train a step from a ControlNet; return the settings, and the loss."""
    controlnet.save_pretrained(tmp_path / "start")
    config = make_config(
        base=folder,
        start_from=str(tmp_path / "start"),
        steps=1,
        batch_size=len(INDICES),
        prompt_dropout=0,
        seed=11,
    )
    reports: list[StepReport] = []
    train_on(config, rows_of(view_type()), reports.append)
    return config, reports[0].loss


def first_gradients(run: Path, controlnet: ControlNetModel) -> dict[str, torch.Tensor]:
    """Return the gradients of a run's first step, by name, out of the optimizer's state."""
    names = [name for name, _ in controlnet.named_parameters()]
    state = load_state(list_checkpoints(run)[-1]).optimizer["state"]
    return {name: state[place]["exp_avg"] / FIRST_MOMENT for place, name in enumerate(names)}


def test_one_step_is_that_of_diffusers_script(any_folder, make_config, view_type, tmp_path):
    controlnet = opened_controlnet(any_folder)
    config, loss_of_ours = first_step(controlnet, any_folder, make_config, view_type, tmp_path)
    draws = draw(INDICES, (4, 8, 8), seed=11, timesteps=1000)
    loss = reference_loss(any_folder, controlnet, samples_of(view_type(), seed=11), draws)
    loss.backward()

    assert loss_of_ours == pytest.approx(float(loss.detach()), abs=1e-6)
    gradients = first_gradients(Path(config.out), controlnet)
    for name, weight in controlnet.named_parameters():
        assert torch.allclose(gradients[name], weight.grad, rtol=1e-4, atol=1e-6), name
    assert all(gradients[name].any() for name in ("conv_in.weight", "controlnet_mid_block.weight"))


def test_a_step_in_bf16_is_the_scripts_within_its_rounding(
    any_folder, make_config, view_type, tmp_path
):
    controlnet = opened_controlnet(any_folder)
    lower = partial(make_config, mixed_precision="bf16")
    _, loss_of_ours = first_step(controlnet, any_folder, lower, view_type, tmp_path)
    draws = draw(INDICES, (4, 8, 8), seed=11, timesteps=1000)
    samples = samples_of(view_type(), seed=11)
    with torch.no_grad():
        exact, rounded = (
            float(reference_loss(any_folder, controlnet, samples, draws, dtype))
            for dtype in (torch.float32, torch.bfloat16)
        )
    assert rounded != exact
    assert loss_of_ours == pytest.approx(rounded, rel=BF16)
    assert loss_of_ours == pytest.approx(exact, rel=BF16)


def test_a_copy_in_bf16_starts_from_the_exact_weights(whole_base_folder, make_config, view_type):
    config = make_config(base=whole_base_folder, steps=1, mixed_precision="bf16")
    train_on(config, rows_of(view_type()), lambda report: None)
    begun = ControlNetModel.from_pretrained(list_checkpoints(Path(config.out))[0].folder)
    unet = UNet2DConditionModel.from_pretrained(whole_base_folder, subfolder="unet")
    theirs = ControlNetModel.from_unet(unet).state_dict()  # as the script makes it, in fp32
    shared = {name for name in theirs if name in unet.state_dict()}
    assert len(shared) > 100
    assert all(torch.equal(begun.state_dict()[name], theirs[name]) for name in shared)


@torch.no_grad()
def test_the_comparison_would_notice_other_noise(whole_base_folder, view_type):
    controlnet, samples = opened_controlnet(whole_base_folder), samples_of(view_type(), seed=11)
    ours, other = (
        float(reference_loss(whole_base_folder, controlnet, samples, draws))
        for draws in (draw(INDICES, (4, 8, 8), seed=seed, timesteps=1000) for seed in (11, 12))
    )
    assert abs(ours - other) > 1e-4


def test_latents_are_those_that_the_autoencoder_samples(base):
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.manual_seed(5)
    sampled = base.vae.encode(pixels).latent_dist.sample() * base.vae.config.scaling_factor
    torch.manual_seed(5)
    assert torch.equal(base.encode_images(pixels, torch.randn(2, 4, 8, 8)), sampled.detach())


def test_a_base_like_sd_2_1_predicts_velocity_and_trains(velocity_folder, make_config, view_type):
    base = load_base(velocity_folder)
    assert base.scheduler.config.prediction_type == "v_prediction"
    controlnet = new_controlnet(base, seed=0)
    assert controlnet.down_blocks[0].attentions[0].proj_in.weight.ndim == 2  # linear, as in 2.1
    config = make_config(base=velocity_folder, steps=2)
    assert train_on(config, rows_of(view_type()), lambda report: None).steps_done == 2
    trained = ControlNetModel.from_pretrained(config.out)
    assert trained.controlnet_mid_block.weight.any()
