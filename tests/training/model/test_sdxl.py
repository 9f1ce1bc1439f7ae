"""SDXL beside diffusers: its texts, one step of its training script, and its parts."""

import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDPMScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tests.training.model.test_diffusers_parity import (
    INDICES,
    Samples,
    as_tensor,
    first_gradients,
    first_step,
    opened_controlnet,
    samples_of,
)
from tests.training.stepping import rows_of
from training.data.micro_conditions import uncut
from training.errors import BaseModelError
from training.model.base import fingerprint, load_base
from training.model.choose import load_denoiser
from training.model.controlnet import new_controlnet
from training.model.denoiser import Controlled
from training.model.objective import Draws, draw
from training.model.sdxl import StableDiffusionXL
from training.run.checkpoint import list_checkpoints
from training.run.loop import train_on

CAPTIONS = ["a red circle", "", "two cats on a mat, by the sea"]


def reference_loss(
    folder: str, controlnet: ControlNetModel, samples: Samples, draws: Draws
) -> torch.Tensor:
    """Return the loss as diffusers' train_controlnet_sdxl.py computes it, all in fp32."""
    pairs = [
        (
            CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer"),
            CLIPTextModel.from_pretrained(folder, subfolder="text_encoder"),
        ),
        (
            CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer_2"),
            CLIPTextModelWithProjection.from_pretrained(folder, subfolder="text_encoder_2"),
        ),
    ]
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae")
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")

    states = []
    for tokenizer, encoder in pairs:
        ids = tokenizer(
            samples.captions,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        with torch.no_grad():
            encoded = encoder(ids, output_hidden_states=True)
        pooled = encoded[0]
        states.append(encoded.hidden_states[-2])
    text = torch.cat(states, dim=-1)
    height, width = samples.images[0].shape[:2]
    time_ids = torch.tensor([[height, width, 0, 0, height, width]] * len(samples.captions))
    added = {"text_embeds": pooled, "time_ids": time_ids}

    posterior = vae.encode((as_tensor(samples.images) - 0.5) / 0.5).latent_dist
    latents = (posterior.mean + posterior.std * draws.posterior) * vae.config.scaling_factor
    noisy = scheduler.add_noise(latents.detach(), draws.noise, draws.timesteps)
    down, middle = controlnet(
        noisy,
        draws.timesteps,
        encoder_hidden_states=text,
        added_cond_kwargs=added,
        controlnet_cond=as_tensor(samples.hints),
        return_dict=False,
    )
    predicted = unet(
        noisy,
        draws.timesteps,
        encoder_hidden_states=text,
        added_cond_kwargs=added,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
    ).sample
    return F.mse_loss(predicted, draws.noise)


def test_texts_are_those_of_diffusers_pipeline(sdxl_folder, sdxl):
    pipeline = StableDiffusionXLPipeline.from_pretrained(sdxl_folder, add_watermarker=False)
    tokens, _, pooled, _ = pipeline.encode_prompt(CAPTIONS, do_classifier_free_guidance=False)
    text = sdxl.encode_text(CAPTIONS)
    assert torch.equal(text.tokens, tokens)
    assert text.pooled is not None
    assert torch.equal(text.pooled, pooled)


def test_one_step_is_that_of_diffusers_script(sdxl_folder, make_config, view_type, tmp_path):
    controlnet = opened_controlnet(sdxl_folder)
    config, loss_of_ours = first_step(controlnet, sdxl_folder, make_config, view_type, tmp_path)
    draws = draw(INDICES, (4, 8, 8), seed=11, timesteps=1000)
    loss = reference_loss(sdxl_folder, controlnet, samples_of(view_type(), seed=11), draws)
    loss.backward()

    assert loss_of_ours == pytest.approx(float(loss.detach()), abs=1e-6)
    gradients = first_gradients(Path(config.out), controlnet)
    for name, weight in controlnet.named_parameters():
        assert torch.allclose(gradients[name], weight.grad, rtol=1e-4, atol=1e-6), name
    assert gradients["add_embedding.linear_1.weight"].any()


@torch.no_grad()
def test_sizes_and_pooled_text_reach_the_prediction(sdxl):
    controlnet = opened_controlnet(str(sdxl.files.folder))
    denoiser = Controlled(sdxl.unet, controlnet)
    noisy, hint, t = torch.randn(1, 4, 8, 8), torch.rand(1, 3, 64, 64), torch.tensor([500])
    text = sdxl.encode_text(["a red circle"])
    plain = denoiser(noisy, t, text.of_sizes([uncut(64, 64)]), hint)
    assert not torch.equal(
        denoiser(noisy, t, text.of_sizes([(512, 640, 0, 64, 64, 64)]), hint), plain
    )
    other = sdxl.encode_text(["a cat"])
    mixed = type(text)(tokens=text.tokens, pooled=other.pooled).of_sizes([uncut(64, 64)])
    assert not torch.equal(denoiser(noisy, t, mixed, hint), plain)


def test_a_new_controlnet_changes_nothing(sdxl):
    denoiser = Controlled(sdxl.unet, new_controlnet(sdxl, seed=0))
    noisy, hint, t = torch.randn(2, 4, 8, 8), torch.rand(2, 3, 64, 64), torch.tensor([3, 900])
    text = sdxl.encode_text(["", "a cat"]).of_sizes([uncut(64, 64)] * 2)
    with torch.no_grad():
        alone = sdxl.unet(noisy, t, text.tokens, added_cond_kwargs=text.added).sample
        assert torch.equal(denoiser(noisy, t, text, hint), alone)


@pytest.mark.parametrize("method", ["controlnet", "concat"])
def test_both_methods_and_all_phases_train(sdxl_folder, make_config, view_type, method):
    phases = [{"trains": "mid_only", "until": 1}, {"trains": "full", "until": 2}]
    phases += [{"trains": "unlocked", "learning_rate": 1e-4}]
    given = {} if method == "concat" else {"phases": phases}
    config = make_config(base=sdxl_folder, method=method, steps=3, **given)
    assert train_on(config, rows_of(view_type()), lambda report: None).steps_done == 3
    base = load_base(sdxl_folder)
    newest = list_checkpoints(Path(config.out))[-1]
    before = base.unet if method == "concat" else new_controlnet(base, seed=config.seed)
    trained = [network for _, network in load_denoiser(newest.folder, base).networks()]
    assert fingerprint(trained) != fingerprint([before])


def test_its_autoencoder_stays_in_fp32_where_fp16_is_asked_for(sdxl_folder, tmp_path):
    half = load_base(sdxl_folder, dtype=torch.float16)
    assert isinstance(half, StableDiffusionXL)
    assert (half.vae.dtype, half.unet.dtype) == (torch.float32, torch.float16)
    fit = AutoencoderKL.from_pretrained(sdxl_folder, subfolder="vae")
    fit.register_to_config(force_upcast=False)
    fit.save_pretrained(tmp_path / "fit")
    assert load_base(sdxl_folder, dtype=torch.float16, vae=str(tmp_path / "fit")).vae.dtype == (
        torch.float16
    )


def test_another_autoencoder_takes_the_bases_place(sdxl, sdxl_folder, tmp_path):
    other = AutoencoderKL.from_config(sdxl.vae.config)
    other.save_pretrained(tmp_path / "some" / "vae")
    changed = load_base(sdxl_folder, vae=str(tmp_path / "some"))
    assert fingerprint([changed.vae]) == fingerprint([other])
    assert fingerprint([changed.unet]) == fingerprint([sdxl.unet])
    assert changed.files.vae_sha256() != sdxl.files.vae_sha256()
    (tmp_path / "empty").mkdir()
    with pytest.raises(BaseModelError, match=r"holds no autoencoder: expected config\.json"):
        load_base(sdxl_folder, vae=str(tmp_path / "empty"))
    with pytest.raises(BaseModelError, match="there is no such folder"):
        load_base(sdxl_folder, vae="nowhere")


@pytest.mark.parametrize("part", ["tokenizer_2", "text_encoder_2"])
def test_half_of_its_second_text_encoder_is_none(sdxl_folder, tmp_path, part):
    shutil.copytree(sdxl_folder, tmp_path / "base")
    shutil.rmtree(tmp_path / "base" / part)
    with pytest.raises(BaseModelError, match=f"{part} missing"):
        load_base(str(tmp_path / "base"))
