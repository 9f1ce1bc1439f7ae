"""A tiny base with RANDOM WEIGHTS in Stable Diffusion's layout, for tests.

It has the parts and the connections of the real one (12 encoder outputs and a middle block in four
resolutions, latents of 8 pixels a cell), so that every line of training and sampling runs on a CPU
in seconds. Its images are noise.
"""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from training.model.tiny_parts import clip_text_encoder, clip_tokenizer, noise_levels

_WIDTH = 16
_POOLED = 24
_SIZE_WIDTH = 8

_README = """# RANDOM WEIGHTS - not a trained model

A tiny network in the layout of Stable Diffusion 1.5, initialised at random (seed {seed}).
It exists to run the code of controlnet-factory in tests; its images are noise.
"""


def write_random_base(folder: str, seed: int = 0, *, resolutions: int = 4, layers: int = 2) -> None:
    """Write a base with random weights, of about a megabyte, as a diffusers pipeline folder.

    Args:
        folder: local folder; `StableDiffusionPipeline.from_pretrained(folder)` loads it.
        seed: of the weights; equal seeds give equal weights.
        resolutions: of the UNet, at least 2; all but the lowest attend to the text.
        layers: of each resolution. Fewer of both make a run shorter.
    """
    with torch.random.fork_rng(devices=[]):  # networks initialise from the global generator
        torch.manual_seed(seed)
        tokenizer = clip_tokenizer()
        pipeline = StableDiffusionPipeline(
            vae=_vae(),
            text_encoder=clip_text_encoder(
                tokenizer, width=_WIDTH, heads=2, feed_forward=4 * _WIDTH
            ),
            tokenizer=tokenizer,
            unet=_unet(resolutions, layers),
            scheduler=noise_levels(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(folder, safe_serialization=True)
    (Path(folder) / "README.md").write_text(_README.format(seed=seed))


def write_random_sdxl_base(
    folder: str, seed: int = 0, *, resolutions: int = 3, layers: int = 1
) -> None:
    """Write a tiny SDXL with random weights: its two text encoders differ in width.

    Args:
        folder: local folder; `StableDiffusionXLPipeline.from_pretrained(folder)` loads it.
        seed: of the weights; equal seeds give equal weights.
        resolutions: of the UNet, at least 2; all but the highest attend to the text.
        layers: of each resolution.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = clip_tokenizer()
        first = clip_text_encoder(tokenizer, width=_WIDTH, heads=2, feed_forward=4 * _WIDTH)
        wider = {**first.config.to_dict(), "hidden_size": 2 * _WIDTH, "projection_dim": _POOLED}
        pipeline = StableDiffusionXLPipeline(
            vae=_vae(),
            text_encoder=first,
            text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**wider)),
            tokenizer=tokenizer,
            tokenizer_2=clip_tokenizer(),
            unet=_sdxl_unet(resolutions, layers),
            scheduler=noise_levels(),
            add_watermarker=False,
        )
    pipeline.save_pretrained(folder, safe_serialization=True)


def _sdxl_unet(resolutions: int, layers: int) -> UNet2DConditionModel:
    attended = resolutions - 1
    return UNet2DConditionModel(
        sample_size=8,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * attended),
        up_block_types=(*("CrossAttnUpBlock2D",) * attended, "UpBlock2D"),
        block_out_channels=(8, *(16,) * attended),
        layers_per_block=layers,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=3 * _WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=_SIZE_WIDTH,
        projection_class_embeddings_input_dim=6 * _SIZE_WIDTH + _POOLED,
    )


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
        scaling_factor=0.18215,
    )


def _unet(resolutions: int, layers: int) -> UNet2DConditionModel:
    attended = resolutions - 1
    return UNet2DConditionModel(
        sample_size=8,
        down_block_types=(*("CrossAttnDownBlock2D",) * attended, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * attended),
        block_out_channels=(8, *(16,) * attended),
        layers_per_block=layers,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=_WIDTH,
    )
