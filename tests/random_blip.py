"""A small BLIP with random weights in the hub's layout: everything but its words is real."""

import io
from contextlib import redirect_stderr
from pathlib import Path

WORDS = (
    "a the of on in with and near under man woman dog cat bird horse boat car tree house river "
    "mountain street table chair red blue green white black small large old standing sitting "
    "running holding wearing looking sky water grass snow"
)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIDE = 32
"""Pixels of the square that it looks at."""


def save_random_blip(folder: Path, *, seed: int = 0, side: int = SIDE, width: int = 32) -> Path:
    """Save config, weights, tokenizer and image processor; the words are drawn by `seed`."""
    import torch
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
    )

    vocabulary = [*SPECIAL, *WORDS.split()]
    tokenizer = BertTokenizer(vocab={word: at for at, word in enumerate(vocabulary)})
    layers = {"hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": 4}
    config = BlipConfig(
        text_config={
            **layers,
            "num_hidden_layers": 2,
            "vocab_size": len(vocabulary) + 2,  # as on the hub: two tokens that no text has
            "bos_token_id": len(vocabulary),
            "sep_token_id": vocabulary.index("[SEP]"),
            "max_position_embeddings": 64,
        },
        vision_config={
            **layers,
            "num_hidden_layers": 2,
            "image_size": side,
            "patch_size": 8,
        },
    )
    model = BlipForConditionalGeneration(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:  # large, so that other pictures give other words
                weights.normal_(std=0.4, generator=generator)
    with redirect_stderr(io.StringIO()):  # a progress bar
        model.save_pretrained(folder)
    processor = BlipImageProcessor(size={"height": side, "width": side})
    processor.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
