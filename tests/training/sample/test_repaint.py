"""White repaints, black keeps: in the latents exactly, in the pixels within the VAE's error."""

import numpy as np
import pytest
import torch

from training.data.pixels import to_unit
from training.errors import SamplingError
from training.sample.repaint import Edit, cells_to_repaint, paste
from training.sample.sampler import Sampling, decode, sample

SIZE = (64, 96)
SCALE = 8


def a_picture(seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return coarse.repeat(SCALE, 0).repeat(SCALE, 1)


def a_mask() -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[16:40, 36:64] = 255  # its left edge lies within a latent cell
    return mask


def edited(base, edit, *, seeds=(0,), steps=4, **call):
    return sample(
        base,
        seeds=list(seeds),
        prompts=["a cat"],
        size=SIZE,
        sampling=Sampling(steps=steps),
        edit=edit,
        **call,
    )


def encoded(base, source):
    return base.encode_images(to_unit([source]) * 2 - 1, torch.zeros(1, 4, 8, 12))[0]


def test_a_cell_with_one_white_pixel_is_repainted():
    mask = np.zeros((16, 24), np.uint8)
    mask[8, 15] = 128
    mask[0, 0] = 127
    assert cells_to_repaint(mask, SCALE)[0, 0].tolist() == [[0, 0, 0], [0, 1, 0]]


def test_kept_latents_are_the_sources_and_repainted_ones_follow_the_seed(base):
    source, mask = a_picture(), a_mask()
    first, second = edited(base, Edit(source=source, mask=mask), seeds=[1, 2]).latents
    repainted = cells_to_repaint(mask, SCALE)[0, 0].bool()
    assert torch.equal(first[:, ~repainted], encoded(base, source)[:, ~repainted])
    assert torch.equal(first[:, ~repainted], second[:, ~repainted])
    assert (first != second)[:, repainted].all()


def test_kept_pixels_are_the_sources_own(base):
    source, mask = a_picture(), a_mask()
    (image,) = edited(base, Edit(source=source, mask=mask)).images
    np.testing.assert_array_equal(image[mask == 0], source[mask == 0])
    assert (image != source).any(axis=-1)[mask == 255].mean() > 0.9


def test_without_pasting_kept_pixels_are_within_the_vaes_error(base):
    source, mask = a_picture(), a_mask()
    (image,) = edited(base, Edit(source=source, mask=mask, paste=False)).images
    (through_vae,) = decode(base, encoded(base, source)[None])
    kept = cells_to_repaint(mask, SCALE)[0, 0].numpy().repeat(SCALE, 0).repeat(SCALE, 1) == 0

    def error(one, other):
        return np.abs(one[kept].astype(float) - other[kept]).mean()

    assert error(image, source) <= 1.05 * error(through_vae, source)


def test_an_all_white_mask_is_plain_sampling(base):
    white = Edit(source=a_picture(), mask=np.full(SIZE, 255, np.uint8))
    plain = edited(base, None, seeds=[3])
    assert torch.equal(edited(base, white, seeds=[3]).latents, plain.latents)


def test_the_repainted_part_sees_what_is_kept(base):
    one, other = (
        edited(base, Edit(source=a_picture(seed), mask=a_mask()), steps=8).latents[0]
        for seed in (1, 2)
    )
    repainted = cells_to_repaint(a_mask(), SCALE)[0, 0].bool()
    assert not torch.allclose(one[:, repainted], other[:, repainted], atol=1e-3)


def test_paste_takes_each_pixel_from_one_picture():
    source, made, mask = a_picture(1), a_picture(2), a_mask()
    pasted = paste(Edit(source=source, mask=mask), made)
    np.testing.assert_array_equal(pasted[mask == 255], made[mask == 255])
    np.testing.assert_array_equal(pasted[mask == 0], source[mask == 0])


@pytest.mark.parametrize(
    ("source", "mask", "said"),
    [
        (a_picture(), np.full((64, 64), 255, np.uint8), "mask is 64x64, the condition 96x64"),
        (a_picture()[:, :64], a_mask(), "picture to edit is 64x64, the condition 96x64"),
        (a_picture(), np.full(SIZE, 127, np.uint8), "all black"),
    ],
)
def test_what_does_not_fit_is_refused(base, source, mask, said):
    with pytest.raises(SamplingError, match=said):
        edited(base, Edit(source=source, mask=mask))
