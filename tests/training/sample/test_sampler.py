import copy

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionControlNetPipeline, StableDiffusionXLControlNetPipeline

from training.errors import ControlNetError, SamplingError
from training.model.controlnet import load_controlnet, new_controlnet
from training.model.denoiser import Controlled
from training.sample.controls import Conditioned, Control
from training.sample.sampler import Sampling, initial_noise, sample

STEPS = 4


def random_hint(seed: int, height: int = 64, width: int = 96) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def learned(base, seed: int):
    """Return a ControlNet whose outputs are not zero."""
    controlnet = new_controlnet(base, seed=seed).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for parameter in controlnet.parameters():
        if not parameter.any():
            parameter.normal_(std=0.2, generator=generator)
    return controlnet


@pytest.fixture
def hint() -> np.ndarray:
    return random_hint(0)


@pytest.fixture(scope="module")
def controlnet(base):
    return learned(base, 0)


def by_diffusers(base, controlnets, hints, *, prompts, seeds, **call) -> torch.Tensor:
    """Return the final latents of diffusers' own pipeline."""
    pipeline = StableDiffusionControlNetPipeline(
        vae=base.vae,
        text_encoder=base.text_encoder,
        tokenizer=base.tokenizer,
        unet=base.unet,
        scheduler=base.sampling_scheduler(),
        controlnet=controlnets if len(controlnets) > 1 else controlnets[0],
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    images = [torch.from_numpy(hint).permute(2, 0, 1)[None] / 255 for hint in hints]
    return pipeline(
        prompt=prompts,
        negative_prompt=["blurry"] * len(seeds),
        image=images if len(controlnets) > 1 else images[0],
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        num_inference_steps=STEPS,
        output_type="latent",
        **call,
    ).images


@pytest.mark.parametrize(
    ("guidance_scale", "weighting", "several", "window"),
    [
        (9.0, "even", False, (0.0, 1.0)),
        (1.0, "even", False, (0.0, 1.0)),
        (9.0, "guess", False, (0.0, 1.0)),
        (1.0, "guess", True, (0.0, 1.0)),
        (9.0, "even", True, (0.25, 0.75)),
        (9.0, "guess", True, (0.25, 0.75)),
    ],
)
def test_latents_are_those_of_diffusers_pipeline(base, guidance_scale, weighting, several, window):
    scales = [0.7, 1.3][: 2 if several else 1]
    networks = [learned(base, seed) for seed in range(len(scales))]
    hints = [random_hint(seed) for seed in range(len(scales))]
    prompts, seeds = ["a cat", "a blue house"], [3, 4]
    theirs = by_diffusers(
        base,
        networks,
        hints,
        prompts=prompts,
        seeds=seeds,
        guidance_scale=guidance_scale,
        guess_mode=weighting == "guess",
        controlnet_conditioning_scale=scales if several else scales[0],
        control_guidance_start=window[0],
        control_guidance_end=window[1],
    )
    ours = sample(
        base,
        [
            Control(controlnet=network, hints=[hint], scale=scale, window=window)
            for network, hint, scale in zip(networks, hints, scales, strict=True)
        ],
        prompts=prompts,
        seeds=seeds,
        negative_prompt="blurry",
        sampling=Sampling(steps=STEPS, guidance_scale=guidance_scale, weighting=weighting),
    )
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours.latents, theirs, rtol=0, atol=1e-5)
    acting = STEPS if window == (0, 1) else STEPS // 2
    assert ours.controlnet_calls == acting * len(scales)


@pytest.mark.parametrize(("guidance_scale", "weighting"), [(9.0, "even"), (7.0, "guess")])
def test_latents_of_sdxl_are_those_of_diffusers_pipeline(sdxl, guidance_scale, weighting):
    network, hint = learned(sdxl, 0), random_hint(0)
    pipeline = StableDiffusionXLControlNetPipeline(
        vae=sdxl.vae,
        text_encoder=sdxl.text_encoder,
        text_encoder_2=sdxl.text_encoder_2,
        tokenizer=sdxl.tokenizer,
        tokenizer_2=sdxl.tokenizer_2,
        unet=sdxl.unet,
        scheduler=sdxl.sampling_scheduler(),
        controlnet=network,
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        prompt=["a cat", "a blue house"],
        negative_prompt=["", ""],
        image=torch.from_numpy(hint).permute(2, 0, 1)[None] / 255,
        generator=[torch.Generator().manual_seed(seed) for seed in (3, 4)],
        num_inference_steps=STEPS,
        guidance_scale=guidance_scale,
        guess_mode=weighting == "guess",
        output_type="latent",
    ).images
    ours = sample(
        sdxl,
        [Control(controlnet=network, hints=[hint])],
        prompts=["a cat", "a blue house"],
        seeds=[3, 4],
        sampling=Sampling(steps=STEPS, guidance_scale=guidance_scale, weighting=weighting),
    )
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours.latents, theirs, rtol=0, atol=1e-5)


def test_ddim_takes_the_papers_twenty_steps(base):
    scheduler = base.sampling_scheduler()
    scheduler.set_timesteps(20)
    assert scheduler.timesteps.tolist() == list(range(951, 0, -50))
    assert scheduler.final_alpha_cumprod == scheduler.alphas_cumprod[0]


def test_an_untrained_controlnet_changes_no_bit(base, hint):
    control = Control(controlnet=new_controlnet(base, seed=0), hints=[hint])
    call = {"seeds": [1, 2], "prompts": ["a cat"], "sampling": Sampling(steps=3)}
    controlled = sample(base, [control], **call).images
    np.testing.assert_array_equal(controlled, sample(base, size=(64, 96), **call).images)
    assert controlled[0].shape == (64, 96, 3)
    assert controlled[0].dtype == np.uint8
    assert not np.array_equal(controlled[0], controlled[1])


def test_a_scale_of_0_leaves_the_base(base, controlnet, hint):
    call = {"seeds": [1], "prompts": [""], "sampling": Sampling(steps=3)}
    control = Control(controlnet=controlnet, hints=[hint], scale=0.0)
    plain = sample(base, size=(64, 96), **call).latents
    assert torch.equal(sample(base, [control], **call).latents, plain)
    control = Control(controlnet=controlnet, hints=[hint])
    assert not torch.allclose(sample(base, [control], **call).latents, plain)


@pytest.mark.parametrize("guidance_scale", [9.0, 1.0])
def test_a_denoiser_samples_as_its_parts_do(base, controlnet, hint, guidance_scale):
    unet = copy.deepcopy(base.unet)
    torch.nn.init.constant_(unet.conv_out.bias, 0.5)
    denoiser = Controlled(unet, controlnet)
    call = {
        "seeds": [1, 2],
        "prompts": ["a cat"],
        "sampling": Sampling(steps=3, guidance_scale=guidance_scale),
    }
    whole = sample(base, Conditioned(denoiser=denoiser, hints=[hint]), **call)
    control = Control(controlnet=controlnet, hints=[hint])
    parts = sample(base, [control], unet=unet, **call)
    torch.testing.assert_close(whole.latents, parts.latents, rtol=0, atol=1e-5)
    assert not torch.allclose(sample(base, [control], **call).latents, parts.latents, atol=1e-3)
    assert (whole.controlnet_calls, parts.controlnet_calls) == (0, 3)


@pytest.mark.parametrize(
    ("window", "calls"), [((0.0, 0.5), 10), ((0.5, 1.0), 10), ((0.0, 1.0), 20), ((0.0, 0.05), 1)]
)
def test_a_controlnet_runs_only_inside_its_window(base, hint, window, calls):
    network = new_controlnet(base, seed=0)
    ran = []
    network.register_forward_hook(lambda *_: ran.append(1))
    control = Control(controlnet=network, hints=[hint], window=window)
    made = sample(base, [control], seeds=[0, 1], prompts=[""])
    assert len(ran) == made.controlnet_calls == calls


def test_windows_of_two_controlnets_are_counted_apart(base, controlnet, hint):
    halves = [
        Control(controlnet=controlnet, hints=[hint], window=window)
        for window in ((0.0, 0.5), (0.0, 1.0))
    ]
    assert sample(base, halves, seeds=[0], prompts=[""]).controlnet_calls == 30


def test_resolution_weighting_strengthens_the_conditional_half_only(base, controlnet, hint):
    def latents(weighting, guidance_scale):
        return sample(
            base,
            [Control(controlnet=controlnet, hints=[hint])],
            seeds=[0],
            prompts=[""],
            sampling=Sampling(steps=2, weighting=weighting, guidance_scale=guidance_scale),
        ).latents

    guided, even = latents("resolution", 3.0), latents("even", 3.0)
    assert not torch.allclose(guided, even)
    # Without a prompt both halves see the same text: only the control can tell them apart.
    assert torch.allclose(even, latents("even", 1.0), atol=1e-4)
    assert not torch.allclose(guided, latents("resolution", 1.0), atol=1e-2)


def test_mid_only_adds_the_middle_block_alone(base, controlnet, hint):
    middle = learned(base, 0)
    for layer in middle.controlnet_down_blocks:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)

    def latents(network, mid_only):
        control = Control(controlnet=network, hints=[hint], mid_only=mid_only)
        return sample(base, [control], seeds=[0], prompts=["a"], sampling=Sampling(steps=2)).latents

    assert torch.equal(latents(controlnet, True), latents(middle, False))
    assert not torch.equal(latents(controlnet, False), latents(middle, False))


def test_equal_seeds_give_the_same_picture_alone_and_in_a_batch(base, controlnet, hint):
    def made(seeds):
        control = Control(controlnet=controlnet, hints=[hint])
        return sample(base, [control], seeds=seeds, prompts=["a"], sampling=Sampling(steps=STEPS))

    together, again, alone = made([5, 6, 5]), made([5, 6, 5]), made([6])
    assert torch.equal(together.latents, again.latents)
    torch.testing.assert_close(together.latents[0], together.latents[2], rtol=0, atol=1e-4)
    torch.testing.assert_close(together.latents[1], alone.latents[0], rtol=0, atol=1e-4)


def test_noise_depends_on_its_seed_alone(base):
    many = initial_noise(base, [7, 8, 9], height=64, width=64)
    assert torch.equal(many[1:2], initial_noise(base, [8], height=64, width=64))


def test_a_batch_may_have_a_hint_and_a_prompt_for_each_picture(base, controlnet):
    hints, prompts = [random_hint(1), random_hint(2)], ["a cat", "a house"]
    call = {"sampling": Sampling(steps=STEPS)}
    batch = sample(
        base, [Control(controlnet=controlnet, hints=hints)], seeds=[1, 1], prompts=prompts, **call
    )
    for at, (hint, prompt) in enumerate(zip(hints, prompts, strict=True)):
        control = Control(controlnet=controlnet, hints=[hint])
        alone = sample(base, [control], seeds=[1], prompts=[prompt], **call)
        torch.testing.assert_close(batch.latents[at], alone.latents[0], rtol=0, atol=1e-4)


def test_each_step_is_told(base):
    told = []
    sample(
        base,
        seeds=[0],
        prompts=[""],
        size=(64, 64),
        sampling=Sampling(steps=3),
        on_step=lambda: told.append(1),
    )
    assert len(told) == 3


def test_a_size_between_latents_is_refused_with_one_that_fits(base):
    odd = Control(controlnet=new_controlnet(base, seed=0), hints=[np.zeros((61, 75, 3), np.uint8)])
    with pytest.raises(SamplingError, match=r"is 75x61; .* multiples of 8 .* 72x56"):
        sample(base, [odd], seeds=[0], prompts=[""])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": []}, "no seeds"),
        ({"prompts": ["a", "b"]}, "2 prompts for 3 seeds"),
        ({"size": (64, 64)}, "one size, got 64x64, 96x64"),
        ({"hints": [random_hint(0), random_hint(1)]}, "2 hints for 3 seeds"),
        ({"hints": [random_hint(0), random_hint(1, 32, 32), random_hint(2)]}, "got 32x32, 96x64"),
        ({"window": (0.5, 0.5)}, "0.5 to 0.5; expected"),
        ({"window": (-0.1, 0.5)}, "expected two shares"),
        ({"window": (0, 50)}, "expected two shares"),
        ({"window": (0.51, 0.54)}, "no whole step of 20"),
    ],
)
def test_a_request_that_cannot_be_met_says_why(base, hint, change, said):
    controlnet = new_controlnet(base, seed=0)
    control = Control(
        controlnet=controlnet,
        hints=change.pop("hints", [hint]),
        window=change.pop("window", (0.0, 1.0)),
    )
    with pytest.raises(SamplingError, match=said):
        sample(base, [control], **{"seeds": [0, 1, 2], "prompts": [""], **change})


def test_a_folder_without_a_controlnet_is_named(tmp_path):
    with pytest.raises(ControlNetError, match=r"no ControlNet \(no config.json\)"):
        load_controlnet(str(tmp_path))


def test_no_guidance_is_the_picture_without_a_prompt(base):
    def latents(prompt, scale):
        sampling = Sampling(steps=2, guidance_scale=scale)
        return sample(base, seeds=[1], prompts=[prompt], size=(64, 64), sampling=sampling).latents

    torch.testing.assert_close(latents("a red circle", 0.0), latents("", 1.0), rtol=0, atol=1e-5)
    assert not torch.equal(latents("a red circle", 0.5), latents("", 1.0))
