import copy

import pytest
import torch

from training.model.base import fingerprint
from training.model.choose import load_denoiser
from training.model.controlnet import new_controlnet
from training.model.denoiser import Controlled


@pytest.fixture
def call(base):
    generator = torch.Generator().manual_seed(0)
    return {
        "noisy": torch.randn(2, 4, 8, 8, generator=generator),
        "timesteps": torch.tensor([5, 700]),
        "text": base.encode_text(["", "a red circle"]),
        "hint": torch.rand(2, 3, 64, 64, generator=generator),
    }


def controlnet_that_speaks(base):
    """One whose outputs are not zero."""
    controlnet = new_controlnet(base, seed=0)
    for layer in (*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block):
        torch.nn.init.constant_(layer.bias, 0.1)
    return controlnet


def learning(denoiser) -> set[str]:
    return {name for name, weight in denoiser.named_parameters() if weight.requires_grad}


def plain(base, call):
    return base.unet(call["noisy"], call["timesteps"], call["text"].tokens).sample


@pytest.mark.parametrize("trains", ["mid_only", "full", "unlocked"])
def test_a_new_controlnet_changes_no_bit(base, call, trains):
    denoiser = Controlled(copy.deepcopy(base.unet), new_controlnet(base, seed=0), trains=trains)
    with torch.no_grad():
        assert torch.equal(denoiser(**call), plain(base, call))


def test_mid_only_adds_the_middle_alone(base, call):
    controlnet = controlnet_that_speaks(base)
    with torch.no_grad():
        both = Controlled(base.unet, controlnet)(**call)
        middle = Controlled(base.unet, controlnet, trains="mid_only")(**call)
        torch.nn.init.zeros_(controlnet.controlnet_mid_block.bias)
        nothing = Controlled(base.unet, controlnet, trains="mid_only")(**call)
    assert not torch.equal(both, middle)
    assert not torch.equal(middle, plain(base, call))
    assert torch.equal(nothing, plain(base, call))


def test_mid_only_freezes_what_has_no_gradient(base, call):
    denoiser = Controlled(base.unet, controlnet_that_speaks(base), trains="mid_only")
    denoiser(**call).square().mean().backward()
    frozen = {
        name for name, weight in denoiser.controlnet.named_parameters() if weight.grad is None
    }
    assert frozen == {
        name
        for name, _ in denoiser.controlnet.named_parameters()
        if name.startswith("controlnet_down_blocks.")
    }
    assert len(frozen) == 2 * len(denoiser.controlnet.controlnet_down_blocks)  # weight and bias


@pytest.mark.parametrize(
    ("scope", "parts"),
    [
        ("decoder", {"up_blocks", "conv_norm_out", "conv_out"}),
        ("all", None),
    ],
)
def test_unlocking_frees_the_decoder_or_all(base, scope, parts):
    unet = copy.deepcopy(base.unet)
    denoiser = Controlled(unet, new_controlnet(base, seed=0), trains="unlocked", scope=scope)
    unlocked = {name.split(".")[1] for name in learning(denoiser) if name.startswith("unet.")}
    assert unlocked == (parts or {name.split(".")[0] for name, _ in unet.named_parameters()})
    grouped = [weight for group in denoiser.groups() for weight in group]
    assert {id(weight) for weight in grouped} == {
        id(weight) for weight in denoiser.parameters() if weight.requires_grad
    }


def test_what_is_saved_is_what_learns(base, tmp_path):
    locked = Controlled(base.unet, controlnet_that_speaks(base))
    locked.save(tmp_path / "locked")
    assert not (tmp_path / "locked" / "unet").exists()
    again = load_denoiser(tmp_path / "locked", base)
    assert fingerprint([again.controlnet]) == fingerprint([locked.controlnet])
    assert again.unet is base.unet

    unet = copy.deepcopy(base.unet)
    torch.nn.init.constant_(unet.conv_out.bias, 0.5)
    free = Controlled(unet, controlnet_that_speaks(base), trains="unlocked")
    free.save(tmp_path / "free")
    assert fingerprint([load_denoiser(tmp_path / "free", base).unet]) == fingerprint([unet])


def test_unlocking_a_half_precision_base_reads_fp32_masters(base, base_folder, tmp_path):
    from training.model.base import load_base

    half = load_base(base_folder, dtype=torch.bfloat16)
    Controlled(half.unet, new_controlnet(base, seed=0)).save(tmp_path)
    denoiser = load_denoiser(tmp_path, half, trains="unlocked")
    assert fingerprint([denoiser.unet]) == fingerprint([base.unet])
