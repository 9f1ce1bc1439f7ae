"""The learning objective (paper 3.3, Eq. 10), and its random draws."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import nn

from training.data.draws import keyed_generator, keyed_normal
from training.model.base import Base
from training.model.text import Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """The random numbers of one batch; each row depends only on the seed and its sample's index.

    Attributes:
        posterior: standard normal; picks the latent from the VAE's distribution.
        noise: standard normal; what the networks learn to predict.
        timesteps: how much noise, 0..num_train_timesteps-1.
    """

    posterior: Float[torch.Tensor, "b c h w"]
    noise: Float[torch.Tensor, "b c h w"]
    timesteps: Int64[torch.Tensor, " b"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What the objective is computed from.

    Attributes:
        latents: z_0, scaled by the VAE's scaling factor.
        noise: standard normal.
        timesteps: t, 0..num_train_timesteps-1.
        text: c_t, what the base sees of the captions.
        hint: c_i, what a ControlNet is shown of the condition, see `Base.hint`.
    """

    latents: Float[torch.Tensor, "b c h w"]
    noise: Float[torch.Tensor, "b c h w"]
    timesteps: Int64[torch.Tensor, " b"]
    text: Text
    hint: Float[torch.Tensor, "b 3 height width"]


def draw(
    indices: Sequence[int], shape: tuple[int, int, int], *, seed: int, timesteps: int
) -> Draws:
    """Draw for the samples with these global indices.

    Args:
        indices: global sample indices, one a row.
        shape: channels, height and width of a latent.
        seed: the run's seed.
        timesteps: how many the scheduler was trained with.
    """
    chosen = [keyed_generator(seed, "timestep", index).integers(timesteps) for index in indices]
    return Draws(
        posterior=keyed_normal(seed, "posterior", indices, shape),
        noise=keyed_normal(seed, "noise", indices, shape),
        timesteps=torch.from_numpy(np.asarray(chosen, dtype=np.int64)),
    )


def denoising_loss(base: Base, denoiser: nn.Module, inputs: Inputs) -> Float[torch.Tensor, ""]:
    """Return the mean squared error between the target and its prediction (Eq. 10), in fp32.

    Args:
        base: the model whose noise levels and kind of prediction count.
        denoiser: a `training.model.denoiser.Denoiser`, or one that a data-parallel module holds.
        inputs: what it sees, on its device.
    """
    noisy = base.add_noise(inputs.latents, inputs.noise, inputs.timesteps)
    predicted = denoiser(noisy, inputs.timesteps, inputs.text, inputs.hint)
    wanted = base.target(inputs.latents, inputs.noise, inputs.timesteps)
    return F.mse_loss(predicted.float(), wanted.float())
