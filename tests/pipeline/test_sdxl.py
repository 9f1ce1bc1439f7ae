"""The whole way with a tiny SDXL: latents, a training that is killed, evaluation, pictures."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, StableDiffusionXLControlNetPipeline
from PIL import Image

from catalog.dataset.dataset import Dataset
from catalog.dataset.latents import find_latents, pooled_name, text_name
from pipeline.recipe.made_by import condition_spec
from tests.pipeline.in_process import here
from tests.random_base import write_random_base, write_random_sdxl_base
from tests.training.stepping import Killed, Steps, assert_same_state, forget_accelerate
from training.errors import DataError
from training.run.checkpoint import WEIGHTS
from training.run.loop import train
from training.settings.config import TrainConfig


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SDXL, a Stable Diffusion, and another autoencoder."""
    folder = tmp_path_factory.mktemp("bases")
    write_random_sdxl_base(str(folder / "sdxl"))
    write_random_base(str(folder / "sd"), resolutions=2, layers=1)
    torch.manual_seed(5)
    config = AutoencoderKL.load_config(str(folder / "sdxl"), subfolder="vae")
    AutoencoderKL.from_config(config).save_pretrained(folder / "vae")
    return folder


@pytest.fixture
def dataset(make, pictures, tmp_path) -> Dataset:
    make(pictures, tmp_path / "dataset")
    return Dataset.open(str(tmp_path / "dataset"))


def settings(dataset: Dataset, base: Path, out: Path, **changes: object) -> TrainConfig:
    fields = {
        "dataset": dataset.uri,
        "base": str(base),
        "out": str(out),
        "condition": "canny",
        "steps": 4,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "checkpoint_every": 2,
        "held_out": 2,
        "probe_steps": 2,
        "probe_every": 2,
    }
    return TrainConfig.model_validate({**fields, **changes})


def run(config: TrainConfig, die_at: int | None = None) -> None:
    spec = condition_spec(Dataset.open(config.dataset), config.condition)
    try:
        train(config, Steps(die_at=die_at), spec=spec)
    finally:
        forget_accelerate()


def test_from_shards_to_pictures(dataset: Dataset, bases: Path, tmp_path: Path) -> None:
    base, straight, killed = bases / "sdxl", tmp_path / "straight", tmp_path / "killed"
    run(settings(dataset, base, straight))
    said = here(
        "precompute", dataset.uri, "--base", str(base), "--stored", "fp32", "--batch-size", "2",
        "--local",
    )  # fmt: skip
    assert "10 samples in 4 units" in said
    (folder,) = find_latents(dataset.uri)
    latents = folder.open()
    assert latents is not None
    assert latents.array(text_name("")).shape == (1, 77, 48)
    assert latents.array(pooled_name("")).shape == (1, 1, 24)
    config = settings(dataset, base, killed, latents="always")
    with pytest.raises(Killed):
        run(config, die_at=3)
    run(config)  # goes on from step 2
    assert_same_state(straight, killed)
    assert (straight / WEIGHTS).read_bytes() == (killed / WEIGHTS).read_bytes()

    here(
        "evaluate", "--run", str(killed), "--dataset", dataset.uri, "--steps", "2",
        "--local-files-only", "--clip", "nobody/clip",
    )  # fmt: skip
    kept = json.loads((killed / "evaluation" / "evaluation.json").read_bytes())
    assert len(kept["per_sample"]) == 2
    Image.fromarray(np.zeros((64, 96), np.uint8)).save(tmp_path / "map.png")
    generate = [
        "generate", "--controlnet", str(killed), "--base", str(base), "--image",
        str(tmp_path / "map.png"), "--steps", "2",
    ]  # fmt: skip
    here(*generate, "--out", str(tmp_path / "pictures"))
    picture = np.asarray(Image.open(tmp_path / "pictures" / "map-seed0.png"))
    assert picture.shape == (64, 96, 3)
    here(*generate, "--out", str(tmp_path / "others"), "--vae", str(bases / "vae"))
    other = np.asarray(Image.open(tmp_path / "others" / "map-seed0.png"))
    assert not np.array_equal(other, picture)

    here("export", str(killed), "--out", str(tmp_path / "given"))
    assert "StableDiffusionXLControlNetPipeline" in (tmp_path / "given" / "README.md").read_text()
    network = ControlNetModel.from_pretrained(tmp_path / "given")
    pipeline = StableDiffusionXLControlNetPipeline.from_pretrained(
        base, controlnet=network, add_watermarker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    hint = Image.new("RGB", (64, 64))
    assert pipeline("a cat", image=hint, num_inference_steps=2).images[0].size == (64, 64)


def test_another_autoencoder_is_another_training(
    dataset: Dataset, bases: Path, tmp_path: Path
) -> None:
    other = {"vae": str(bases / "vae"), "steps": 2, "probe_every": 0}
    run(settings(dataset, bases / "sdxl", tmp_path / "other", **other))
    run(settings(dataset, bases / "sdxl", tmp_path / "own", steps=2, probe_every=0))
    weights = [(tmp_path / name / WEIGHTS).read_bytes() for name in ("other", "own")]
    assert weights[0] != weights[1]
    longer = settings(dataset, bases / "sdxl", tmp_path / "other", steps=3, probe_every=0)
    run(longer)  # with the autoencoder that it was begun with, though nobody names it again
    shutil.rmtree(tmp_path / "other")
    here("precompute", dataset.uri, "--base", str(bases / "sdxl"), "--local")
    with pytest.raises(DataError, match="they are of another autoencoder"):
        run(settings(dataset, bases / "sdxl", tmp_path / "other", latents="always", **other))


def test_latents_of_a_stable_diffusion_do_not_fit(
    dataset: Dataset, bases: Path, tmp_path: Path
) -> None:
    here("precompute", dataset.uri, "--base", str(bases / "sd"), "--local")
    with pytest.raises(DataError, match=r"of another (autoencoder|text encoder)"):
        run(settings(dataset, bases / "sdxl", tmp_path / "run", latents="always"))
