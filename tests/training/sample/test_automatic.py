"""Automatic prompts: default pass, caption of its result, second pass with the caption."""

import numpy as np
import pytest
import torch

from training.model.controlnet import new_controlnet
from training.sample.automatic import sample_automatic
from training.sample.controls import Control
from training.sample.prompts import DEFAULT_PROMPT
from training.sample.sampler import Sampling, sample


@pytest.fixture
def draw(base):
    hint = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    control = Control(controlnet=new_controlnet(base, seed=0), hints=[hint])
    seeds, sampling = [1, 2], Sampling(steps=3)

    def draw(prompts):
        return sample(base, [control], seeds=seeds, prompts=prompts, sampling=sampling)

    return draw


def test_the_second_pass_is_prompted_by_what_was_seen_in_the_first(draw):
    seen = []

    def captioner(images):
        seen.extend(images)
        return [f"mean {image.mean():.0f}" for image in images]

    made = sample_automatic(draw, captioner, count=2)
    first = draw([DEFAULT_PROMPT] * 2)
    np.testing.assert_array_equal(seen, first.images)
    np.testing.assert_array_equal(made.first.images, first.images)
    assert made.prompts == [f"mean {image.mean():.0f}" for image in first.images]
    assert torch.equal(made.second.latents, draw(made.prompts).latents)
    assert not torch.equal(made.second.latents, first.latents)
    assert made.first.controlnet_calls == made.second.controlnet_calls == 3


def test_a_picture_without_caption_keeps_the_default_prompt(draw):
    made = sample_automatic(draw, lambda images: ["", "a cat"], count=2)
    assert made.prompts == [DEFAULT_PROMPT, "a cat"]
