"""A run to give away: plain diffusers loads it, and its card says what the run recorded."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, UNet2DConditionModel
from huggingface_hub import ModelCard
from PIL import Image

from catalog.dataset.dataset import Dataset
from pipeline.build.build import build
from pipeline.build.local import run_local
from pipeline.errors import UsageError
from pipeline.export.export import export
from pipeline.recipe.execution import Execution
from pipeline.recipe.made_by import condition_spec
from pipeline.recipe.recipe import load_recipe
from pipeline.scan.source import Inputs
from tests.pipeline.silent import Silent
from tests.random_base import write_random_base
from tests.rules import ANY_LOOK
from tests.training.stepping import forget_accelerate
from training.errors import CheckpointError
from training.run.checkpoint import WEIGHTS
from training.run.loop import train
from training.settings.config import TrainConfig


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps, the second with the UNet unlocked; probed on two samples."""
    folder = tmp_path_factory.mktemp("export")
    write_random_base(str(folder / "base"), resolutions=2, layers=1)
    recipe = load_recipe("canny", ["image.resolution=64", *ANY_LOOK])
    inputs = Inputs(images=[str(pictures)])
    out = str(folder / "d")
    build(recipe, out, inputs, Execution(threads=1), executor=run_local, observer=Silent())
    config = TrainConfig(
        dataset=out,
        condition="canny",
        base=str(folder / "base"),
        out=str(folder / "run"),
        steps=2,
        batch_size=2,
        held_out=2,
        probe_steps=2,
        phases=[{"trains": "full", "until": 1}, {"trains": "unlocked"}],  # type: ignore[arg-type]
    )
    train(config, lambda report: None, spec=condition_spec(Dataset.open(out), "canny"))
    forget_accelerate()
    return folder / "run"


def test_plain_diffusers_paints_with_what_is_exported(run: Path, tmp_path: Path) -> None:
    written = export(run, tmp_path / "out")
    assert export(run, tmp_path / "out") == written
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md",
        "config.json",
        WEIGHTS,
        "unet",
        "progress.png",
        "adherence.png",
    }
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(
        run.parent / "base",
        controlnet=ControlNetModel.from_pretrained(tmp_path / "out"),
        unet=UNet2DConditionModel.from_pretrained(tmp_path / "out" / "unet"),
        safety_checker=None,
    )
    pipeline.set_progress_bar_config(disable=True)
    hint = Image.new("RGB", (64, 64))
    with torch.no_grad():
        image = pipeline("a picture", image=hint, num_inference_steps=2).images[0]
    assert image.size == (64, 64)


def test_the_card_says_what_the_run_recorded(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.library_name == "diffusers"
    assert "canny" in card.data.tags
    assert card.data.base_model is None  # a folder on this machine
    assert str(run.parent) not in card.text
    for line in (
        "8 samples (all), 2 more held out",
        "2 optimizer steps of 2 samples (4 images)",
        "phases: full until 1, unlocked",
        "2 held-out samples, at step 2",
        'from_pretrained("THIS_FOLDER/unet")',
        "![Condition, picture without control",
    ):
        assert line in card.text


def test_a_checkpoint_is_exported_as_it_was_then(run: Path, tmp_path: Path) -> None:
    checkpoint = next((run / "checkpoints").glob("*1"))
    export(checkpoint, tmp_path / "out")
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (checkpoint / WEIGHTS).read_bytes()
    assert not (tmp_path / "out" / "unet").exists()
    assert "1 optimizer steps of 2 samples" in (tmp_path / "out" / "README.md").read_text()


def test_what_cannot_be_exported_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no run"):
        export(tmp_path, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("my own")
    with pytest.raises(UsageError, match="holds something else"):
        export(run, tmp_path / "mine")
    shutil.copytree(run, tmp_path / "run")
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    (newest / WEIGHTS).write_bytes(b"")
    with pytest.raises(CheckpointError, match="is damaged"):
        export(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()
