"""The sampler of probes: seeds, batches, and the same pictures as `training.sample.sampler`."""

import numpy as np
import pytest
import torch

from tests.training.probing import make_probe, photograph
from training.model.controlnet import new_controlnet
from training.model.denoiser import Controlled
from training.sample.controls import Control
from training.sample.for_probes import controlled, reconstruct, uncontrolled
from training.sample.sampler import Sampling
from training.sample.sampler import sample as sampled


@pytest.fixture(scope="module")
def denoiser(base) -> Controlled:
    """A ControlNet whose outputs are not zero."""
    controlnet = new_controlnet(base, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in controlnet.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return Controlled(base.unet, controlnet)


@pytest.fixture(scope="module")
def asked():
    hints = [sample.hint for sample in make_probe(64, 64).samples]
    return hints, ["a red circle", "a blue square"], [3, 4]


def differ(one, other) -> int:
    """The largest difference of two pictures, in levels."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def test_pictures_are_those_of_the_sampling_command(base, denoiser, asked):
    settings = Sampling(steps=4, guidance_scale=5.0)
    made = controlled(base, denoiser, steps=4, guidance_scale=5.0)(*asked)
    for picture, hint, prompt, seed in zip(made, *asked, strict=True):
        control = Control(controlnet=denoiser.controlnet.eval(), hints=[hint])
        one = {"seeds": [seed], "prompts": [prompt], "sampling": settings}
        (expected,) = sampled(base, [control], **one).images
        assert picture.shape == (64, 64, 3)
        assert differ(picture, expected) <= 1
    bare = uncontrolled(base, steps=4, guidance_scale=5.0)(*asked)
    for picture, prompt, seed in zip(bare, *asked[1:], strict=True):
        one = {"seeds": [seed], "prompts": [prompt], "sampling": settings}
        (expected,) = sampled(base, size=(64, 64), **one).images
        assert differ(picture, expected) <= 1


def test_condition_prompt_and_seed_count_and_the_rest_does_not(base, denoiser, asked):
    hints, prompts, seeds = asked
    sample = controlled(base, denoiser, steps=2)
    made = sample(*asked)
    assert differ(sample(*asked)[0], made[0]) == 0
    assert differ(sample(hints[::-1], prompts, seeds)[0], made[0]) > 1
    assert differ(sample(hints, prompts[::-1], seeds)[0], made[0]) > 1
    assert differ(sample(hints, prompts, seeds[::-1])[0], made[0]) > 1
    alone = sample(hints[:1], prompts[:1], seeds[:1])
    assert differ(alone[0], made[0]) <= 1  # what else is in the batch does not count


def test_without_control_the_condition_does_not_count(base, asked):
    hints, prompts, seeds = asked
    sample = uncontrolled(base, steps=2)
    for one, other in zip(sample(*asked), sample(hints[::-1], prompts, seeds), strict=True):
        assert differ(one, other) == 0


def test_an_untrained_controlnet_changes_nothing(base, asked):
    untrained = Controlled(base.unet, new_controlnet(base, seed=0))
    made, bare = (sample(*asked) for sample in (controlled(base, untrained), uncontrolled(base)))
    assert all(differ(one, other) == 0 for one, other in zip(made, bare, strict=True))


def test_a_reconstruction_has_the_size_of_its_image(base):
    images = [photograph(0), photograph(1, 128)]
    made = reconstruct(base, images)
    assert [one.shape for one in made] == [one.shape for one in images]
    assert all(one.dtype == np.uint8 for one in made)
    assert (made[0] == reconstruct(base, images)[0]).all()
