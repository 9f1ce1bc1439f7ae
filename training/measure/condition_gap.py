"""The condition gap: how much worse the networks predict with another sample's condition.

A cheap stand-in for adherence (`training.measure.adherence`): a few passes of the networks, no
pictures.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from math import fsum

import torch

from detectors.graph import by_size
from training.data.draws import keyed_normal
from training.data.micro_conditions import uncut
from training.data.pixels import as_signed, stack, to_unit
from training.errors import DataError
from training.measure.adherence import ProbeSample
from training.measure.batches import in_batches
from training.model.base import Base
from training.model.objective import Inputs

GAP_TIMESTEPS = (0.3, 0.6, 0.9)
"""Parts of the noise schedule at which the gap is taken, 0..1."""

_BATCH = 8  # rows at once


def gap_inputs(base: Base, samples: Sequence[ProbeSample], *, seed: int) -> Inputs:
    """Return fixed inputs for `condition_gap`: each sample at each of `GAP_TIMESTEPS`.

    Args:
        base: on the device to use.
        samples: held-out samples of one size.
        seed: of the noise.

    Raises:
        DataError: the samples differ in size, or there are fewer than 2.
    """
    if len(by_size([sample.image for sample in samples])) != 1 or len(samples) < 2:
        raise DataError("the condition gap needs 2 or more held-out samples, all of one size")
    levels, device = base.scheduler.config.num_train_timesteps, base.vae.device
    rows = [(at, round(part * levels)) for part in GAP_TIMESTEPS for at in range(len(samples))]
    height, width = (side // base.scale for side in samples[0].image.shape[:2])
    shape = (base.vae.config.latent_channels, height, width)
    order = [at for at, _ in rows]
    pixels = as_signed(stack([sample.image for sample in samples]))

    def encode(batch: list[int]) -> torch.Tensor:
        return base.encode_images(pixels[batch], torch.zeros(len(batch), *shape))

    text = base.encode_text([sample.caption for sample in samples])
    encoded = [made for _, made in in_batches(encode, range(len(samples)), _BATCH)]
    return Inputs(
        latents=torch.cat(encoded)[order],
        noise=keyed_normal(seed, "gap", range(len(rows)), shape).to(device),
        timesteps=torch.tensor([timestep for _, timestep in rows], device=device),
        text=text.of_sizes([uncut(*samples[0].image.shape[:2])] * len(text))[order],
        hint=base.hint(to_unit([sample.hint for sample in samples]).to(device))[order],
    )


@torch.no_grad()
def condition_gap(
    loss: Callable[[Inputs], torch.Tensor], inputs: Inputs, *, batch_size: int = _BATCH
) -> float:
    """Return the mean loss with the conditions shuffled, less that with the true ones.

    Near 0 while the networks do not heed their condition, and above it from the sudden convergence
    on.

    Args:
        loss: mean loss of inputs, for example `training.model.objective.denoising_loss` of two
            networks.
        inputs: what `gap_inputs` returns; neighbouring rows are different samples.
        batch_size: rows at once; fewer where the device's memory does not suffice.
    """
    shuffled = replace(inputs, hint=inputs.hint.roll(1, dims=0))
    return _mean(loss, shuffled, batch_size) - _mean(loss, inputs, batch_size)


def _mean(loss: Callable[[Inputs], torch.Tensor], inputs: Inputs, batch_size: int) -> float:
    rows = range(len(inputs.hint))
    made = in_batches(lambda batch: float(loss(_rows(inputs, batch))), rows, batch_size)
    return fsum(len(batch) * mean for batch, mean in made) / len(rows)


def _rows(inputs: Inputs, rows: list[int]) -> Inputs:
    return Inputs(**{field.name: getattr(inputs, field.name)[rows] for field in fields(inputs)})
