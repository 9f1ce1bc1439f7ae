import pytest
import torch
from diffusers import UNet2DConditionModel

from training.model.base import fingerprint
from training.model.concat_baseline import Concat, as_latent_channels, concat_unet


@pytest.fixture
def concat(base) -> Concat:
    return Concat(concat_unet(base.unet))


@pytest.fixture
def inputs(base) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, 4, 8, 8, generator=generator)
    hint = torch.rand(2, 3, 64, 64, generator=generator)
    return noisy, torch.tensor([3, 900]), base.encode_text(["", "a cat"]), hint


def test_an_untrained_baseline_predicts_what_the_base_does(base, concat, inputs):
    noisy, timesteps, text, _ = inputs
    with torch.no_grad():
        assert torch.equal(concat(*inputs), base.unet(noisy, timesteps, text.tokens).sample)


def test_all_of_it_learns_and_the_base_does_not(base, concat, inputs):
    before = fingerprint([base.unet])
    (group,) = concat.groups()
    assert len(group) == len(list(concat.parameters()))
    assert all(weight.requires_grad for weight in group)
    optimizer = torch.optim.SGD(group, lr=0.1)
    predicted = concat(*inputs).detach()
    concat(*inputs).square().mean().backward()
    still = {name for name, weight in concat.named_parameters() if not weight.grad.any()}
    assert all("attn" in name for name in still)  # keys' biases cannot change a softmax
    assert concat.unet.conv_in.weight.grad[:, 4:].any()
    optimizer.step()
    assert not torch.equal(concat(*inputs), predicted)
    assert fingerprint([base.unet]) == before
    assert not any(weight.requires_grad for weight in base.unet.parameters())


def test_the_condition_counts_once_its_weights_are_not_zero(concat, inputs):
    noisy, timesteps, text, hint = inputs
    with torch.no_grad():
        concat.unet.conv_in.weight[:, 4:] = 0.1
        given, other = concat(*inputs), concat(noisy, timesteps, text, hint.flip(-1))
    assert not torch.allclose(given, other)


def test_widening_draws_no_random_numbers(base):
    state = torch.get_rng_state()
    assert concat_unet(base.unet).config.in_channels == 7
    assert torch.equal(torch.get_rng_state(), state)


def test_bare_diffusers_loads_it(concat, tmp_path):
    concat.save(tmp_path)
    loaded = UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    assert fingerprint([loaded]) == fingerprint([concat.unet])


def test_a_condition_is_stretched_from_minus_1_to_1():
    ramp = torch.linspace(0.2, 0.6, 64).expand(1, 3, 64, 64)
    step = torch.zeros(1, 3, 64, 64)
    step[..., 32:] = 1
    scaled = as_latent_channels(torch.cat([ramp, step]), (8, 8))
    assert scaled.shape == (2, 3, 8, 8)
    for row in scaled:
        assert (float(row.min()), float(row.max())) == pytest.approx((-1, 1), abs=1e-6)
    assert torch.allclose(scaled[1, :, :, :3], torch.tensor(-1.0), atol=0.1)
    assert torch.allclose(scaled[1, :, :, 5:], torch.tensor(1.0), atol=0.1)
    assert (scaled[0].diff(dim=-1) > 0).all()


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_a_condition_without_contrast_is_safe(level):
    scaled = as_latent_channels(torch.full((1, 3, 64, 48), level), (8, 6))
    assert torch.allclose(scaled, torch.full((1, 3, 8, 6), -1.0), atol=1e-3)


def test_samples_do_not_change_each_other():
    hints = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    together = as_latent_channels(hints, (4, 4))
    alone = [as_latent_channels(hint[None], (4, 4))[0] for hint in hints]
    assert torch.equal(together, torch.stack(alone))
