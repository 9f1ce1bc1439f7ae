"""The seam for families to come: a flow objective, and hints through the autoencoder, as SD3 has.

The family of this test is no product: it is Stable Diffusion's tiny networks under other rules.
"""

from functools import wraps
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import ControlNetModel, FlowMatchEulerDiscreteScheduler

from tests.training.stepping import Killed, Steps, assert_same_state, rows_of
from training.data.order import row_of
from training.model import base as bases
from training.model.base import load_base
from training.model.choose import load_denoiser
from training.model.controlled_block import zero_layer
from training.model.denoiser import Controlled
from training.model.objective import draw
from training.model.stable_diffusion import StableDiffusion
from training.run.checkpoint import list_checkpoints
from training.run.loop import train_on
from training.sample.controls import Control
from training.sample.sampler import Sampling, sample

LATENT_CHANNELS = 4


class LatentHintControlNet(ControlNetModel):
    """Its hint is a latent, which a zero convolution widens."""

    @wraps(ControlNetModel.__init__)
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        width = self.config.block_out_channels[0]
        self.controlnet_cond_embedding = zero_layer("maps", LATENT_CHANNELS, width)


class Flow(StableDiffusion):
    """Predicts the way from the image to the noise (Esser et al., 2024, section 2)."""

    CONTROLNETS = {"released": LatentHintControlNet}  # noqa: RUF012

    def hint(self, condition):
        height, width = (side // self.scale for side in condition.shape[-2:])
        mean = torch.zeros(len(condition), LATENT_CHANNELS, height, width)
        return self.encode_images(condition * 2 - 1, mean)

    def add_noise(self, latents, noise, timesteps):
        share = (timesteps.float() / 1000).reshape(-1, 1, 1, 1)
        return (1 - share) * latents + share * noise

    def target(self, latents, noise, timesteps):
        return noise - latents

    def sampling_scheduler(self):
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000)


@pytest.fixture
def flow_folder(base_folder, monkeypatch) -> str:
    monkeypatch.setattr(bases, "family_of", lambda files: Flow)
    return base_folder


def test_a_flow_with_hints_through_the_autoencoder(
    flow_folder, config_of, view_type, tmp_path
) -> None:
    """It trains on its own objective, is killed and goes on to the same bits, and paints."""
    view, settings = view_type(), {"prompt_dropout": 0, "seed": 3}
    straight = Steps()
    train_on(config_of(tmp_path / "straight", **settings), rows_of(view), straight)
    with pytest.raises(Killed):
        train_on(config_of(tmp_path / "killed", **settings), rows_of(view), Steps(die_at=3))
    train_on(config_of(tmp_path / "killed", **settings), rows_of(view), Steps())
    assert_same_state(tmp_path / "straight", tmp_path / "killed")

    base = load_base(flow_folder)
    assert isinstance(base, Flow)
    trained = load_denoiser(tmp_path / "straight", base)
    assert isinstance(trained, Controlled)
    assert type(trained.controlnet) is LatentHintControlNet
    assert trained.controlnet.controlnet_cond_embedding.weight.any()
    hint = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pictures = [
        sample(
            base,
            [Control(controlnet=trained.controlnet.eval(), hints=[hint], scale=scale)],
            seeds=[1],
            prompts=["a cat"],
            sampling=Sampling(steps=3),
        ).latents
        for scale in (0.0, 1.0)
    ]
    assert not torch.equal(*pictures)
    assert straight.losses[1] == pytest.approx(first_loss(base, view, seed=3), abs=1e-6)


@torch.no_grad()
def first_loss(base: Flow, view, *, seed: int) -> float:
    """Return the flow's loss at the first step, written down: the ControlNet adds nothing yet."""
    from catalog.images import decode_image
    from training.data.pixels import to_unit

    read = [view.read(row_of(seed, index, len(view))) for index in (0, 1)]
    pixels = to_unit([decode_image(one.image) for one in read]) * 2 - 1
    draws = draw([0, 1], (LATENT_CHANNELS, 8, 8), seed=seed, timesteps=1000)
    posterior = base.vae.encode(pixels).latent_dist
    latents = (posterior.mean + posterior.std * draws.posterior) * base.vae.config.scaling_factor
    share = (draws.timesteps / 1000).reshape(-1, 1, 1, 1)
    noisy = latents + share * (draws.noise - latents)
    text = base.encode_text([one.caption for one in read])
    predicted = base.unet(noisy, draws.timesteps, text.tokens).sample
    return float(F.mse_loss(predicted, draws.noise - latents))


def test_checkpoints_of_a_family_load_by_its_own_classes(
    flow_folder, config_of, view_type, tmp_path
):
    config = config_of(tmp_path / "run", steps=1)
    train_on(config, rows_of(view_type()), lambda report: None)
    newest = list_checkpoints(Path(config.out))[-1]
    denoiser = load_denoiser(newest.folder, load_base(flow_folder))
    assert type(denoiser.controlnet) is LatentHintControlNet
