"""A tiny base with RANDOM WEIGHTS in Stable Diffusion's layout, for tests and the demo.

It has the parts and the connections of the real one (12 encoder outputs and a middle block in four
resolutions, latents of 8 pixels a cell), so that every line of training and sampling runs on a CPU
in seconds. Its images are noise.
"""

import json
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
_TOKENS = 77
_WIDTH = 16

_README = """# RANDOM WEIGHTS - not a trained model

A tiny network in the layout of Stable Diffusion 1.5, initialised at random (seed {seed}).
It exists to run the code of controlnet-factory in tests and in the demo; its images are noise.
"""


def write_random_base(folder: str, seed: int = 0) -> None:
    """Write a base with random weights, of about a megabyte, as a diffusers pipeline folder.

    Args:
        folder: local folder; `StableDiffusionPipeline.from_pretrained(folder)` loads it.
        seed: of the weights; equal seeds give equal weights.
    """
    with torch.random.fork_rng(devices=[]):  # networks initialise from the global generator
        torch.manual_seed(seed)
        tokenizer = _tokenizer()
        pipeline = StableDiffusionPipeline(
            vae=_vae(),
            text_encoder=_text_encoder(tokenizer),
            tokenizer=tokenizer,
            unet=_unet(),
            scheduler=_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(folder, safe_serialization=True)
    (Path(folder) / "README.md").write_text(_README.format(seed=seed))


def byte_symbols() -> list[str]:
    """Return the 256 characters that byte-level BPE writes the bytes 0..255 with.

    Printable Latin-1 bytes stand for themselves; the others take the characters from U+0100 on, in
    order (GPT-2's table, which CLIP uses).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _tokenizer() -> CLIPTokenizer:
    """Return CLIP's tokenizer over single bytes: each byte within a word, each at a word's end."""
    symbols = byte_symbols()
    words = [*symbols, *(f"{symbol}</w>" for symbol in symbols), _BEGIN, _END]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = {word: number for number, word in enumerate(words)}
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        Path(folder, "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=_TOKENS)


def _text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=_WIDTH,
            intermediate_size=4 * _WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
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


def _unet() -> UNet2DConditionModel:
    attended = ("CrossAttnDownBlock2D",) * 3
    return UNet2DConditionModel(
        sample_size=8,
        down_block_types=(*attended, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=2,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=_WIDTH,
    )


def _scheduler() -> DDPMScheduler:
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        steps_offset=1,
        clip_sample=False,
        prediction_type="epsilon",
    )
