import shutil

import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionPipeline

from tests.random_base import write_random_base
from training.errors import BaseModelError, ControlNetError
from training.model.base import fingerprint, load_base
from training.model.controlnet import new_controlnet, starting_controlnet
from training.model.denoiser import Controlled
from training.model.objective import Inputs, denoising_loss, draw

ZERO_CONVOLUTIONS = ("controlnet_down_blocks.", "controlnet_mid_block.")
HINT = "controlnet_cond_embedding."


def inputs_of(base, index: int) -> Inputs:
    draws = draw([index], (4, 8, 8), seed=0, timesteps=1000)
    return Inputs(
        latents=draws.posterior,
        noise=draws.noise,
        timesteps=draws.timesteps,
        text=base.encode_text(["a picture"]),
        hint=torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(index)),
    )


def names_with_gradients(controlnet) -> set[str]:
    return {
        name for name, weight in controlnet.named_parameters() if weight.grad.count_nonzero() > 0
    }


def test_training_reaches_the_network_through_its_zero_convolutions(base):
    controlnet = new_controlnet(base, seed=0).train()
    optimizer = torch.optim.AdamW(controlnet.parameters(), lr=1e-3)
    reached = []
    for step in range(3):
        optimizer.zero_grad()
        denoising_loss(base, Controlled(base.unet, controlnet), inputs_of(base, step)).backward()
        reached.append(names_with_gradients(controlnet))
        optimizer.step()

    every = {name for name, _ in controlnet.named_parameters()}
    zero = {name for name in every if name.startswith(ZERO_CONVOLUTIONS)}
    hint = {name for name in every if name.startswith(HINT)}
    last = {name for name in hint if name.startswith(HINT + "conv_out")}
    assert reached[0] == zero
    assert reached[1] >= zero | last | {"conv_in.weight", "mid_block.resnets.0.conv1.weight"}
    assert not reached[1] & (hint - last)
    assert reached[2] >= hint


def test_the_copy_starts_as_the_base(whole_base_folder):
    base = load_base(whole_base_folder)
    controlnet = new_controlnet(base, seed=0)
    unet = base.unet.state_dict()
    copied = {name: w for name, w in controlnet.state_dict().items() if name in unet}
    encoder = ("conv_in.", "time_embedding.", "down_blocks.", "mid_block.")
    assert set(copied) == {name for name in unet if name.startswith(encoder)}
    assert all(torch.equal(weight, unet[name]) for name, weight in copied.items())
    assert len(controlnet.controlnet_down_blocks) == 12


def test_new_weights_depend_on_the_seed_alone(base):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = fingerprint([new_controlnet(base, seed=0)])
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert fingerprint([new_controlnet(base, seed=0)]) == first
    assert fingerprint([new_controlnet(base, seed=1)]) != first


def test_the_base_is_locked(base):
    for network in base.networks:
        assert not network.training
        assert not any(weight.requires_grad for weight in network.parameters())


def test_hint_encoder_ends_at_the_size_of_the_latents(base):
    controlnet = new_controlnet(base, seed=0)
    encoded = controlnet.controlnet_cond_embedding(torch.zeros(1, 3, 64, 96))
    assert (
        encoded.shape[2:] == base.vae.encode(torch.zeros(1, 3, 64, 96)).latent_dist.mean.shape[2:]
    )


def test_a_missing_base_says_how_to_get_one(tmp_path):
    with pytest.raises(BaseModelError, match=r"there is no such folder[\s\S]*hf download"):
        load_base(str(tmp_path / "nowhere"))


def test_an_incomplete_base_names_what_it_lacks(base_folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(base_folder, broken)
    shutil.rmtree(broken / "vae")
    with pytest.raises(BaseModelError, match="vae missing"):
        load_base(str(broken))


def test_a_base_without_weights_is_an_error_of_ours(base_folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(base_folder, broken)
    (broken / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(BaseModelError, match="OSError"):
        load_base(str(broken))


def test_a_hub_id_that_is_not_on_this_machine_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BaseModelError, match=r"LocalEntryNotFound[\s\S]*hf download[\s\S]*HF_HOME"):
        load_base("nobody/such-a-base", local_files_only=True)


def test_a_hub_id_is_read_from_the_cache(base, base_folder, tmp_path, monkeypatch):
    cached = tmp_path / "models--somebody--tiny-base"
    shutil.copytree(base_folder, cached / "snapshots" / "c0ffee")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("c0ffee")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    loaded = load_base("somebody/tiny-base", local_files_only=True)
    assert fingerprint(loaded.networks) == fingerprint(base.networks)


def test_the_encoders_alone_encode_as_they_do_with_the_unet(base, base_folder):
    encoders = load_base(base_folder, encoders_only=True)
    assert {weight.device.type for weight in encoders.unet.parameters()} == {"meta"}
    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    assert torch.equal(encoders.moments(pixels), base.moments(pixels))
    assert torch.equal(encoders.encode_text(["a", ""]).tokens, base.encode_text(["a", ""]).tokens)


def test_the_random_base_is_a_function_of_its_seed(whole_base_folder, tmp_path):
    write_random_base(str(tmp_path / "same"), seed=0)
    write_random_base(str(tmp_path / "other"), seed=1)
    weights = fingerprint(load_base(whole_base_folder).networks)
    assert fingerprint(load_base(str(tmp_path / "same")).networks) == weights
    assert fingerprint(load_base(str(tmp_path / "other")).networks) != weights


def test_the_random_base_loads_in_bare_diffusers_and_says_what_it_is(tmp_path):
    folder = tmp_path / "base"
    write_random_base(str(folder), seed=3)
    assert (folder / "README.md").read_text().startswith("# RANDOM WEIGHTS")
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 4e6
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a cat", height=64, width=64, num_inference_steps=2, output_type="np").images[
        0
    ]
    assert image.shape == (64, 64, 3)
    assert image.std() > 0


def test_the_random_bases_tokenizer_spells_any_text(base):
    text = "a red cat, café 漢字 !"
    ids = base.tokenizer(text).input_ids
    assert base.tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(
        " ", ""
    )
    assert (ids[0], ids[-1]) == (base.tokenizer.bos_token_id, base.tokenizer.eos_token_id)
    assert max(ids) < base.text_encoder.config.vocab_size


def test_a_trained_controlnet_is_a_start(base, tmp_path) -> None:
    trained = new_controlnet(base, seed=5)
    trained.save_pretrained(tmp_path)
    assert fingerprint([starting_controlnet(base, str(tmp_path))]) == fingerprint([trained])
    other = ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=(8, 16))
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ControlNetError, match="other layers than one for this base"):
        starting_controlnet(base, str(tmp_path / "other"))


def test_a_text_that_is_cut_is_told_once(base_folder, caplog):
    base = load_base(base_folder)
    with caplog.at_level("WARNING", logger="training"):
        base.encode_text(["short", ""])
        assert not caplog.records
        base.encode_text(["word " * 100, "short", "other " * 90])
        base.encode_text(["word " * 100])
    (record,) = caplog.records
    assert "2 of 3 texts are longer than the text encoder's 77 tokens" in record.getMessage()
