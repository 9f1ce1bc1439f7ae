import dataclasses

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from training.errors import BaseModelError
from training.model.controlnet import new_controlnet
from training.model.denoiser import Controlled
from training.model.objective import Inputs, denoising_loss, draw

SHAPE = (4, 8, 8)


@pytest.fixture
def inputs(base) -> Inputs:
    draws = draw([3, 11], SHAPE, seed=0, timesteps=1000)
    generator = torch.Generator().manual_seed(0)
    return Inputs(
        latents=draws.posterior,
        noise=draws.noise,
        timesteps=torch.tensor([5, 700]),
        text=base.encode_text(["", "a red circle"]),
        hint=torch.rand(2, 3, 64, 64, generator=generator),
    )


def with_prediction(base, kind):
    scheduler = DDPMScheduler.from_config(base.scheduler.config, prediction_type=kind)
    return dataclasses.replace(base, scheduler=scheduler)


def noise_levels() -> np.ndarray:
    """Signal left at each timestep, from Stable Diffusion's published schedule, in float64."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return np.cumprod(1 - betas)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_loss_is_equation_10(base, inputs, kind):
    controlnet = new_controlnet(base, seed=0)
    level = noise_levels()[inputs.timesteps.numpy()].reshape(2, 1, 1, 1)
    z, noise = inputs.latents.numpy(), inputs.noise.numpy()
    noisy = torch.from_numpy((level**0.5 * z + (1 - level) ** 0.5 * noise).astype(np.float32))
    with torch.no_grad():
        predicted = base.unet(noisy, inputs.timesteps, inputs.text.tokens).sample.numpy()
    wanted = noise if kind == "epsilon" else level**0.5 * noise - (1 - level) ** 0.5 * z
    expected = ((wanted - predicted) ** 2).mean()  # the new ControlNet adds zeros

    loss = denoising_loss(with_prediction(base, kind), Controlled(base.unet, controlnet), inputs)

    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_the_controlnet_takes_part_in_the_prediction(base, inputs):
    controlnet = new_controlnet(base, seed=0)
    before = denoising_loss(base, Controlled(base.unet, controlnet), inputs)
    torch.nn.init.constant_(controlnet.controlnet_mid_block.bias, 1.0)
    assert denoising_loss(base, Controlled(base.unet, controlnet), inputs) != before


def test_another_prediction_type_is_refused(base, inputs):
    with pytest.raises(BaseModelError, match="prediction_type 'sample'"):
        with_prediction(base, "sample").target(inputs.latents, inputs.noise, inputs.timesteps)


def test_draws_belong_to_samples_not_to_batches():
    torch.manual_seed(1)
    together = draw([4, 9, 2], SHAPE, seed=5, timesteps=1000)
    torch.manual_seed(2)
    for place, index in enumerate([4, 9, 2]):
        alone = draw([index], SHAPE, seed=5, timesteps=1000)
        assert torch.equal(alone.noise[0], together.noise[place])
        assert torch.equal(alone.posterior[0], together.posterior[place])
        assert alone.timesteps[0] == together.timesteps[place]


def test_draws_of_other_seeds_and_purposes_differ():
    draws = draw([1], SHAPE, seed=0, timesteps=1000)
    far = draw([1], SHAPE, seed=2**32, timesteps=1000)  # torch's own generator would repeat here
    assert not torch.equal(draws.noise, draws.posterior)
    assert not torch.equal(draws.noise, far.noise)


def test_draws_have_the_distributions_of_the_paper():
    draws = draw(range(2000), SHAPE, seed=0, timesteps=1000)
    assert abs(float(draws.noise.mean())) < 0.01
    assert abs(float(draws.noise.std()) - 1) < 0.01
    assert draws.timesteps.min() >= 0
    assert draws.timesteps.max() <= 999
    counts = np.bincount(draws.timesteps.numpy() // 250, minlength=4)
    assert counts.shape == (4,)
    assert np.abs(counts - 500).max() < 80  # 4 standard deviations of a quarter of 2,000
