"""Small Florence-2 and Qwen3-VL with random weights in the hub's layout: stand-ins for tests."""

import io
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from tests.random_blip import WORDS

_ASKED = "what does the image describe Describe in detail what is shown user assistant"
_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %} {{ part['text'] }}{% endif %}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)


def save_random_florence2(folder: Path, *, seed: int = 0) -> Path:
    """Save config, weights, tokenizer and processor; an encoder-decoder that looks at 32x32."""
    from transformers import (
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    tokenizer = _tokenizer(
        ["<pad>", "<s>", "</s>", "<unk>", "<image>"],
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )
    number = tokenizer.convert_tokens_to_ids
    image_processor = CLIPImageProcessor(
        size={"height": 32, "width": 32},
        crop_size={"height": 32, "width": 32},
        do_center_crop=False,
    )
    image_processor.image_seq_length = 2
    config = Florence2Config(
        text_config={
            "model_type": "bart",
            "vocab_size": len(tokenizer),
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": 128,
            "pad_token_id": number("<pad>"),
            "bos_token_id": number("<s>"),
            "eos_token_id": number("</s>"),
            "decoder_start_token_id": number("</s>"),
            "forced_eos_token_id": None,
            "forced_bos_token_id": None,
        },
        vision_config={
            "depths": (1, 1, 1, 1),
            "embed_dim": (8, 8, 16, 32),
            "num_heads": (2, 2, 2, 2),
            "num_groups": (2, 2, 2, 2),
            "window_size": 4,
            "projection_dim": 32,
            "drop_path_rate": 0.0,
        },
        image_token_id=number("<image>"),
    )
    model = _drawn(Florence2ForConditionalGeneration(config), seed)
    return _save(folder, model, Florence2Processor(image_processor, tokenizer))


def save_random_qwen3_vl(folder: Path, *, seed: int = 0) -> Path:
    """Save config, weights, tokenizer and processor; a chat model, its tokens follow the size."""
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    special = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
    special += ["<|image_pad|>", "<|video_pad|>", "<unk>"]
    tokenizer = _tokenizer(
        special,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<unk>",
        additional_special_tokens=special[:6],
    )
    number = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
            },
            "eos_token_id": number("<|im_end|>"),
        },
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 4,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1, 2],
        },
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
    )
    model = _drawn(Qwen3VLForConditionalGeneration(config), seed)
    model.generation_config.eos_token_id = number("<|im_end|>")
    model.generation_config.pad_token_id = number("<|im_end|>")
    model.generation_config.temperature = 0.7  # as on the hub
    model.generation_config.do_sample = True
    how = {"patch_size": 8, "merge_size": 2, "min_pixels": 256, "max_pixels": 4096}
    processor = Qwen3VLProcessor(
        Qwen2VLImageProcessor(**how), tokenizer, Qwen3VLVideoProcessor(), chat_template=_CHAT
    )
    return _save(folder, model, processor)


def _tokenizer(special: list[str], **named: Any) -> Any:
    """Return a tokenizer of words, split at white space."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*special, *WORDS.split()]
    words += _ASKED.split()
    vocabulary = {word: at for at, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def _drawn(model: Any, seed: int) -> Any:
    """Return a model with weights so large that other pictures give other words."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.normal_(std=0.4, generator=generator)
    return model


def _save(folder: Path, model: Any, processor: Any) -> Path:
    with redirect_stderr(io.StringIO()):  # a progress bar
        model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
