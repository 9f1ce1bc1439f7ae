import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel
from torch import nn

from training.errors import BaseModelError, ControlNetError
from training.model.base import fingerprint
from training.model.controlnet import load_controlnet, new_controlnet, starting_controlnet
from training.model.denoiser import Controlled
from training.model.hint_encoder import PaperControlNet, PaperHintEncoder, hint_channels

SD = (16, 32, 64, 128)


@pytest.mark.parametrize(
    ("hint_encoder", "scale", "channels"),
    [
        ("released", 1, (16,)),
        ("released", 2, (16, 32)),
        ("released", 4, (16, 32, 96)),
        ("released", 8, (16, 32, 96, 256)),
        ("paper", 2, (16, 32)),
        ("paper", 4, (16, 32, 64)),
        ("paper", 8, SD),
    ],
)
def test_hint_channels_halve_down_to_the_latents(hint_encoder, scale, channels):
    assert hint_channels(hint_encoder, scale) == channels


@pytest.mark.parametrize("hint_encoder", ["released", "paper"])
def test_latents_out_of_the_hint_encoders_reach_are_refused(hint_encoder):
    with pytest.raises(BaseModelError, match=rf"16 pixels.* {hint_encoder} .*reaches 8"):
        hint_channels(hint_encoder, 16)


def test_the_papers_encoder_turns_512_pixels_into_64():
    encoder = PaperHintEncoder(320, SD)
    assert encoder(torch.zeros(1, 3, 512, 512)).shape == (1, 320, 64, 64)


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(64, 64), (24, 40)])
def test_the_papers_encoder_ends_at_the_size_of_the_latents(scale, size):
    encoder = PaperHintEncoder(8, hint_channels("paper", scale))
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * scale.bit_length(),
        up_block_types=("UpDecoderBlock2D",) * scale.bit_length(),
        block_out_channels=(4,) * scale.bit_length(),
        norm_num_groups=2,
    )
    image = torch.zeros(1, 3, *size)
    assert encoder(image).shape[2:] == vae.encode(image).latent_dist.mean.shape[2:]


def test_the_papers_encoder_has_the_layers_that_the_paper_names():
    torch.manual_seed(0)
    encoder = PaperHintEncoder(320, SD)
    layers = list(encoder.convolutions)
    assert [layer.out_channels for layer in layers] == [16, 32, 64, 128]
    assert [layer.kernel_size for layer in layers] == [(4, 4)] * 4
    assert [layer.stride for layer in layers] == [(2, 2)] * 3 + [(1, 1)]
    for layer in layers:  # Gaussian: as wide as asked, and 68% within one standard deviation
        width = (2 / (layer.in_channels * 16)) ** 0.5
        assert float(layer.weight.detach().std()) == pytest.approx(width, rel=0.1)
        assert (layer.weight.abs() < width).float().mean() == pytest.approx(0.683, abs=0.04)


def test_the_papers_encoder_sees_the_whole_condition_and_adds_nothing_at_first():
    encoder = PaperHintEncoder(8, SD)
    hint = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    assert not encoder(hint).any()
    nn.init.ones_(encoder.conv_out.weight)
    encoder(hint).sum().backward()
    assert (hint.grad != 0).any(dim=1).float().mean() > 0.99


@pytest.fixture(scope="module")
def paper(base) -> ControlNetModel:
    return new_controlnet(base, seed=3, hint_encoder="paper")


def test_a_new_controlnet_with_the_papers_encoder_changes_nothing(base, paper):
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, 4, 8, 8, generator=generator)
    hint = torch.rand(2, 3, 64, 64, generator=generator)
    timesteps, text = torch.tensor([3, 900]), base.encode_text(["", "a cat"])
    with torch.no_grad():
        alone = base.unet(noisy, timesteps, text.tokens).sample
        assert torch.equal(Controlled(base.unet, paper)(noisy, timesteps, text, hint), alone)


def test_it_differs_from_the_released_one_in_its_hint_encoder_alone(base, paper):
    def rest(network):
        return {
            name: weight
            for name, weight in network.state_dict().items()
            if not name.startswith("controlnet_cond_embedding.")
        }

    released = rest(new_controlnet(base, seed=3))
    assert rest(paper).keys() == released.keys()
    assert all(torch.equal(weight, released[name]) for name, weight in rest(paper).items())
    assert fingerprint([new_controlnet(base, seed=3, hint_encoder="paper")]) == fingerprint([paper])
    assert fingerprint([new_controlnet(base, seed=4, hint_encoder="paper")]) != fingerprint([paper])


def test_it_is_loaded_as_what_it_was_saved(paper, tmp_path):
    paper.save_pretrained(tmp_path)
    loaded = load_controlnet(str(tmp_path))
    assert type(loaded) is PaperControlNet
    assert fingerprint([loaded]) == fingerprint([paper])
    assert loaded.config.conditioning_embedding_out_channels == [*SD]


def test_bare_diffusers_refuses_it_instead_of_drawing_another_encoder(paper, tmp_path):
    paper.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"controlnet_cond_embedding.conv_out.weight"):
        ControlNetModel.from_pretrained(tmp_path)


def test_training_goes_on_only_with_the_same_hint_encoder(base, paper, tmp_path):
    paper.save_pretrained(tmp_path)
    started = starting_controlnet(base, str(tmp_path), hint_encoder="paper")
    assert fingerprint([started]) == fingerprint([paper])
    with pytest.raises(ControlNetError, match="released hint encoder"):
        starting_controlnet(base, str(tmp_path))
