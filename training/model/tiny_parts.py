"""What tiny bases share: a small CLIP tokenizer and text model, Stable Diffusion's noise levels.

`tests.random_base` and examples/shapes make bases of them.
"""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

from diffusers import DDPMScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer(merges: Iterable[tuple[str, str]] = (), *, tokens: int = 77) -> CLIPTokenizer:
    """Return CLIP's tokenizer with a vocabulary of single bytes and what is merged of them.

    Each byte stands there twice: within a word, and at a word's end.

    Args:
        merges: pairs of symbols that become one, in order, as byte-level BPE learns them.
        tokens: of a prompt at most, with those of begin and end.
    """
    merges, symbols = list(merges), byte_symbols()
    words = [*symbols, *(f"{symbol}</w>" for symbol in symbols)]
    vocabulary = dict.fromkeys([*words, *("".join(pair) for pair in merges), _BEGIN, _END])
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    with tempfile.TemporaryDirectory() as folder:
        numbers = {word: number for number, word in enumerate(vocabulary)}
        Path(folder, "vocab.json").write_text(json.dumps(numbers), encoding="utf-8")
        Path(folder, "merges.txt").write_text("\n".join(lines), encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=tokens)


def byte_symbols() -> list[str]:
    """Return the 256 characters that byte-level BPE writes the bytes 0..255 with.

    Printable Latin-1 bytes stand for themselves; the others take the characters from U+0100 on, in
    order (GPT-2's table, which CLIP uses).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def clip_text_encoder(
    tokenizer: CLIPTokenizer, *, width: int, heads: int, feed_forward: int
) -> CLIPTextModel:
    """Return a CLIP text model of two layers, with random weights.

    Args:
        tokenizer: whose vocabulary and length it takes.
        width: of an embedding.
        heads: of attention.
        feed_forward: width of the layer between.
    """
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=feed_forward,
            num_hidden_layers=2,
            num_attention_heads=heads,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def noise_levels() -> DDPMScheduler:
    """Return Stable Diffusion 1.5's noise levels."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        steps_offset=1,
        clip_sample=False,
        prediction_type="epsilon",
    )
