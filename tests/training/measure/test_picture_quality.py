"""CLIP score and FID by networks with random weights, and the words where there are none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.measure.picture_quality import (
    INCEPTION_FILE,
    ClipScore,
    Inception,
    Missing,
    few_samples,
    frechet_distance,
    load_clip,
    load_inception,
)

PICTURES = [np.full((48, 64, 3), level, np.uint8) for level in (0, 120, 250)]
PROMPTS = ["black", "grey", "white"]


@pytest.fixture(scope="module")
def clip_folder(base_folder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP model with random weights."""
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        CLIPTokenizer,
    )

    folder = str(tmp_path_factory.mktemp("clip"))
    tokenizer = CLIPTokenizer.from_pretrained(Path(base_folder, "tokenizer"))
    size = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **size,
            "num_hidden_layers": 2,
            "vocab_size": len(tokenizer),
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={**size, "num_hidden_layers": 2, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
    return folder


def test_clip_scores_pairs(clip_folder):
    clip = load_clip(clip_folder, "cpu")
    assert isinstance(clip, ClipScore)
    singles = [clip([image], [text]) for image, text in zip(PICTURES, PROMPTS, strict=True)]
    assert clip(PICTURES, PROMPTS) == pytest.approx(np.mean(singles), abs=1e-3)
    assert all(0 <= score <= 100 for score in singles)
    assert clip(PICTURES * 12, PROMPTS * 12) == pytest.approx(clip(PICTURES, PROMPTS), abs=1e-3)


def test_clip_takes_prompts_that_are_too_long(clip_folder):
    clip = load_clip(clip_folder, "cpu")
    assert isinstance(clip, ClipScore)
    assert clip(PICTURES[:1], ["a very long prompt " * 40]) >= 0


@pytest.mark.parametrize("name", ["nobody/such-clip", "/nowhere/at/all"])
def test_a_missing_clip_is_told_in_words(name):
    missing = load_clip(name, "cpu")
    assert isinstance(missing, Missing)
    assert missing.why.startswith(f"CLIP score: not measured, {name} is not on this machine")
    assert f"hf download {name}" in missing.why


def test_inception_is_found_or_told_in_words(tmp_path, monkeypatch):
    from torchvision.models import inception_v3

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    missing = load_inception("cpu")
    assert isinstance(missing, Missing)
    assert INCEPTION_FILE in missing.why
    (tmp_path / "checkpoints").mkdir()
    model = inception_v3(weights=None, init_weights=False)
    torch.save(model.state_dict(), tmp_path / "checkpoints" / INCEPTION_FILE)
    inception = load_inception("cpu")
    assert isinstance(inception, Inception)
    features = inception([*PICTURES, PICTURES[0]])
    assert features.shape == (4, 2048)
    assert np.allclose(features[0], features[3])
    assert not np.allclose(features[0], features[1])


@given(seed=st.integers(0, 1000), rows=st.integers(2, 20), columns=st.integers(1, 12))
def test_the_frechet_distance_is_one(seed, rows, columns):
    generator = np.random.default_rng(seed)
    one = generator.normal(size=(rows, columns))
    other = generator.normal(1, 2, size=(rows + 3, columns))
    shift = generator.normal(size=columns)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one))
    assert frechet_distance(one, other) >= 0
    assert frechet_distance(one, one + shift) == pytest.approx(float(shift @ shift))


def test_the_frechet_distance_by_the_textbook():
    """Against the formula with a matrix root, and in one dimension by hand."""
    from scipy.linalg import sqrtm

    generator = np.random.default_rng(0)
    one = generator.normal(size=(50, 5)) @ generator.normal(size=(5, 5))
    other = generator.normal(1, 2, size=(60, 5))
    left, right = np.cov(one.T), np.cov(other.T)
    means = one.mean(0) - other.mean(0)
    expected = means @ means + np.trace(left + right - 2 * sqrtm(left @ right).real)
    assert frechet_distance(one, other) == pytest.approx(expected)
    wide, narrow = np.array([[-3.0], [3.0]]), np.array([[0.0], [2.0]])
    gap = np.sqrt(18) - np.sqrt(2)  # of the standard deviations
    assert frechet_distance(wide, narrow) == pytest.approx(1 + gap**2)


def test_few_pictures_are_warned_of():
    assert few_samples(2048) is None
    assert "64 pictures" in (few_samples(64) or "")
