"""The base's networks: Stable Diffusion's kinds, small; 64 px pictures, 4 pixels a latent cell."""

import json
from collections.abc import Iterable

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Split
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTextModel, CLIPTokenizer

from training.model.tiny_parts import clip_text_encoder, clip_tokenizer

TOKENS = 24
WIDTH = 128


def new_tokenizer(texts: Iterable[str]) -> CLIPTokenizer:
    """Return CLIP's tokenizer with one token for each word of `texts`, and bytes for the rest."""
    words = sorted({word for text in texts for word in text.replace(",", " , ").split()})
    learner = Tokenizer(BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = Split(" ", behavior="removed")
    learner.train_from_iterator(
        words, BpeTrainer(vocab_size=10_000, end_of_word_suffix="</w>", show_progress=False)
    )
    merges = json.loads(learner.to_str())["model"]["merges"]
    return clip_tokenizer((tuple(pair) for pair in merges), tokens=TOKENS)


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return a CLIP text model of two layers."""
    return clip_text_encoder(tokenizer, width=WIDTH, heads=4, feed_forward=2 * WIDTH)


def new_autoencoder() -> AutoencoderKL:
    """Return an autoencoder of 4 pixels a cell and 8 latent channels: thin edges must survive.

    It starts with little noise on its latents, through which it would hardly begin to learn.
    """
    network = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(24, 48, 64),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=8,
        sample_size=64,
        mid_block_add_attention=False,
    )
    torch.nn.init.constant_(network.quant_conv.bias.data[8:], -6.0)  # the latents' log variances
    return network


def new_unet() -> UNet2DConditionModel:
    """Return a UNet of three resolutions (16, 8 and 4 cells) with cross-attention in the lower."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=8,
        out_channels=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(56, 88, 120),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=4,
        cross_attention_dim=WIDTH,
    )
