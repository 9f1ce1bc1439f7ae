"""Florence-2 and Qwen3-VL beside transformers' own way, on random weights that are named so."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from captioning.errors import WeightsError
from captioning.vision_language import Florence2Spec, Qwen3VlSpec, VisionLanguageSpec
from captioning.vision_language_network import VisionLanguage
from tests.random_vision_language import save_random_florence2, save_random_qwen3_vl

PROMPTS = {
    "florence2": {"short": "<CAPTION>", "long": "<DETAILED_CAPTION>"},
    "qwen3_vl": {"short": "Describe the image", "long": "Describe in detail what is shown"},
}
SIZES = [(64, 64), (64, 96), (96, 64), (64, 64), (48, 80), (64, 64)]
TOKENS = 12


@pytest.fixture(scope="module", params=["florence2", "qwen3_vl"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    save = {"florence2": save_random_florence2, "qwen3_vl": save_random_qwen3_vl}[kind]
    return save(tmp_path_factory.mktemp("model") / kind)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    draw = np.random.default_rng(1)
    return [draw.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def spec_of(kind: str, folder: Path, **changes: Any) -> VisionLanguageSpec:
    made = {"florence2": Florence2Spec, "qwen3_vl": Qwen3VlSpec}[kind]
    return made(captioner=kind, model=str(folder), **changes)


def loaded(kind: str, folder: Path, **changes: Any) -> VisionLanguage:
    settings = {"precision": "fp32", "batch_size": 4, "max_new_tokens": TOKENS, **changes}
    return VisionLanguage(folder, "cpu", prompts=PROMPTS[kind], **settings)


def said(network: VisionLanguage, images: list[np.ndarray]) -> list[dict[str, str]]:
    return [json.loads(one) for one in network([network.prepare(image) for image in images])]


def by_transformers(folder: Path, image: np.ndarray, prompt: str) -> str:
    """Return a text as transformers' documentation makes it, an image at a time."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    text = prompt
    if processor.chat_template:
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        turns = [{"role": "user", "content": content}]
        text = processor.apply_chat_template(turns, add_generation_prompt=True)
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    inputs = processor(images=pixels, text=text, return_tensors="pt")
    model.generation_config.temperature = None
    tokens = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, num_beams=1)
    begin = 0 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    return str(processor.batch_decode(tokens[:, begin:], skip_special_tokens=True)[0])


def test_texts_are_those_of_transformers(kind: str, folder: Path, images: list) -> None:
    network = loaded(kind, folder)
    texts = said(network, images[:4])
    assert len({text["short"] for text in texts}) > 2  # the pictures are told apart
    for image, text in list(zip(images, texts, strict=False))[:2]:
        for name, prompt in PROMPTS[kind].items():
            assert text[name] == by_transformers(folder, image, prompt)


def test_a_text_does_not_depend_on_its_company(kind: str, folder: Path, images: list) -> None:
    network = loaded(kind, folder)
    alone = [said(network, [image])[0] for image in images]
    assert said(network, images[:4]) == alone[:4]
    assert said(network, images[2:]) == alone[2:]
    assert said(network, [images[5], images[0], images[3]]) == [alone[at] for at in (5, 0, 3)]


def test_one_length_is_asked_for_or_both(kind: str, folder: Path, images: list) -> None:
    long = spec_of(kind, folder, length="long", max_new_tokens=4)
    assert list(long.prompts) == ["long"]
    assert set(said(long.load("cpu"), images[:1])[0]) == {"long"}
    both = spec_of(kind, folder, length="long", both=True, max_new_tokens=4)
    (text,) = said(both.load("cpu"), images[:1])
    caption = both.said(json.dumps(text), "beside")
    assert caption is not None
    assert caption.record() == {
        "text": text["long"],
        "source": kind,
        "sidecar": "beside",
        "blip": "",
        "long": text["long"],
        "short": text["short"],
    }
    assert both.said(json.dumps({"short": "a cat", "long": " \n"}), "") is None
    plain = long.said(json.dumps({"long": "a\ncat "}), "")
    assert plain is not None
    assert plain.record() == {"text": "a cat", "source": kind, "sidecar": "", "blip": ""}


def test_what_changes_a_text_is_in_its_identity(kind: str, folder: Path) -> None:
    spec = spec_of(kind, folder)
    assert spec.identity["weights"].startswith("sha256:")
    assert str(folder) not in json.dumps(spec.identity)
    for change in (
        {"prompt": "other"},
        {"both": True},
        {"length": "long"},
        {"precision": "fp32"},
        {"beams": 2},
        {"max_new_tokens": 5},
        {"batch_size": 2},
    ):
        assert spec_of(kind, folder, **change).network_identity != spec.network_identity, change
    unasked = spec_of(kind, folder, long_prompt="other")
    assert unasked.network_identity == spec.network_identity
    lengths = (spec_of(kind, folder, both=True, length=one) for one in ("short", "long"))
    one, other = lengths
    assert one.network_identity == other.network_identity  # the same texts, from the cache
    assert one.identity != other.identity


def test_a_hub_id_needs_its_commit(kind: str) -> None:
    named = {"florence2": Florence2Spec, "qwen3_vl": Qwen3VlSpec}[kind]
    with pytest.raises(ValidationError, match="is not pinned here"):
        named(captioner=kind)
    assert named(captioner=kind, revision="0" * 40).identity["weights"].endswith("@" + "0" * 40)


def test_what_is_not_whole_is_not_loaded(kind: str, folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(WeightsError, match="cannot be loaded as a vision-language model"):
        loaded(kind, tmp_path)  # no processor
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="1 of its tensors are missing"):
        loaded(kind, tmp_path)


def test_weights_in_several_files_are_one_checkpoint(
    kind: str, folder: Path, tmp_path: Path, images: list
) -> None:
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folder)
    for file in folder.iterdir():
        if file.name != "model.safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    spec = spec_of(kind, tmp_path, precision="fp32", max_new_tokens=4, batch_size=4)
    before = spec.identity["weights"]
    whole = spec_of(kind, folder, precision="fp32", max_new_tokens=4, batch_size=4)
    assert said(spec.load("cpu"), images[:2]) == said(whole.load("cpu"), images[:2])
    shards[0].write_bytes(shards[0].read_bytes() + b" ")
    assert spec.identity["weights"] != before
    shards[0].unlink()
    with pytest.raises(WeightsError, match=rf"it lacks {shards[0].name}"):
        spec.load("cpu")
