import numpy as np
import pytest
import torch

from training.controlnet import load_controlnet, new_controlnet
from training.errors import ControlNetError, SamplingError
from training.prompts import DEFAULT_PROMPT, choose_prompt
from training.sampling import ddim, generate, generate_base


@pytest.fixture
def hint() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)


def test_ddim_takes_the_papers_twenty_steps(base):
    scheduler = ddim(base.scheduler)
    scheduler.set_timesteps(20)
    assert scheduler.timesteps.tolist() == list(range(951, 0, -50))
    assert scheduler.final_alpha_cumprod == scheduler.alphas_cumprod[0]


def test_an_untrained_controlnet_changes_no_bit(base, hint):
    controlnet = new_controlnet(base, seed=0)
    controlled = generate(base, controlnet, hint=hint, prompt="a cat", seeds=[1, 2], steps=3)
    plain = generate_base(base, height=64, width=96, prompt="a cat", seeds=[1, 2], steps=3)
    np.testing.assert_array_equal(controlled, plain)
    assert controlled[0].shape == (64, 96, 3)
    assert controlled[0].dtype == np.uint8
    assert not np.array_equal(controlled[0], controlled[1])


def test_a_controlnet_that_has_learned_changes_the_image(base, hint):
    controlnet = new_controlnet(base, seed=0)
    torch.nn.init.constant_(controlnet.controlnet_mid_block.bias, 1.0)
    call = {"hint": hint, "prompt": "", "seeds": [1], "steps": 3}
    (free,) = generate(base, controlnet, **call, conditioning_scale=0.0)
    (controlled,) = generate(base, controlnet, **call)
    assert not np.array_equal(free, controlled)


def test_a_size_between_latents_is_refused_with_one_that_fits(base):
    odd = np.zeros((61, 75, 3), np.uint8)
    with pytest.raises(SamplingError, match=r"is 75x61; .* multiples of 8 .* 72x56"):
        generate(base, new_controlnet(base, seed=0), hint=odd, prompt="", seeds=[0])


def test_an_image_needs_a_seed(base):
    with pytest.raises(SamplingError, match="no seeds"):
        generate_base(base, height=64, width=64, prompt="", seeds=[])


def test_a_folder_without_a_controlnet_is_named(tmp_path):
    with pytest.raises(ControlNetError, match=r"no ControlNet \(no config.json\)"):
        load_controlnet(str(tmp_path))


@pytest.mark.parametrize(
    ("mode", "text", "prompt"),
    [("none", None, ""), ("default", None, DEFAULT_PROMPT), ("user", "a cat", "a cat")],
)
def test_prompt_modes(mode, text, prompt):
    assert choose_prompt(mode, text) == prompt


@pytest.mark.parametrize(("mode", "text"), [("user", None), ("none", "a cat"), ("default", "")])
def test_a_prompt_that_does_not_fit_its_mode_is_refused(mode, text):
    with pytest.raises(SamplingError, match="mode"):
        choose_prompt(mode, text)
