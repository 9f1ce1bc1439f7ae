"""Datasets drawn from ground truth: labels are found, hashed, paired, and missed aloud."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catalog import tables
from catalog.dataset.dataset import REJECTS, Dataset
from catalog.images import decode_image
from pipeline.build.build import build
from pipeline.build.local import run_local
from pipeline.errors import RecipeError
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import load_recipe
from pipeline.scan.source import Inputs

_SMALL = ["image.resolution=64", "samples_per_unit=2"]


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Four pictures: two with labels, one without, one whose label has another size."""
    generator = np.random.default_rng(0)
    for number in range(4):
        pixels = generator.integers(0, 256, (96, 128, 3), dtype=np.uint8)
        ids = np.zeros((96, 128), np.uint8)
        ids[:, 64:] = number + 1
        for folder, array in (("images/a", pixels), ("labels/a", ids)):
            path = tmp_path / folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    (tmp_path / "labels" / "a" / "2.png").unlink()
    Image.new("L", (10, 10)).save(tmp_path / "labels" / "a" / "3.png")
    return tmp_path


def make_labelled(scenes: Path, out: Path, observer: object) -> Dataset:
    inputs = Inputs(images=[str(scenes / "images")], labels=str(scenes / "labels"))
    recipe = load_recipe("seg_ade20k", ["captions.captioner=sidecar", *_SMALL])
    build(recipe, str(out), inputs, Execution(threads=1), executor=run_local, observer=observer)
    return Dataset.open(str(out))


def test_each_image_is_drawn_with_its_own_label(
    scenes: Path, tmp_path: Path, silent: Callable[[], object]
) -> None:
    dataset = make_labelled(scenes, tmp_path / "d", silent())
    view = dataset.view()
    assert len(view) == 2
    colours = set()
    for index in range(2):
        sample = view.read(index)
        drawn = decode_image(sample.conditions["seg"])
        assert drawn.shape == (64, 64, 3)
        left, right = drawn[:, :31].reshape(-1, 3), drawn[:, 33:].reshape(-1, 3)
        assert len(np.unique(left, axis=0)) == len(np.unique(right, axis=0)) == 1
        colours.add(tuple(right[0].tolist()))
    assert len(colours) == 2  # two classes, two colours
    rejects = tables.read_table(str(tmp_path / "d" / REJECTS)).to_pylist()
    assert [row["status"] for row in rejects] == ["rejected:label"] * 2
    assert "the label is 10x10, its image 128x96" in {row["detail"] for row in rejects}


def test_another_label_is_another_unit(
    scenes: Path, tmp_path: Path, silent: Callable[[], object]
) -> None:
    before = make_labelled(scenes, tmp_path / "one", silent()).unit_ids
    Image.new("L", (128, 96), 7).save(scenes / "labels" / "a" / "0.png")
    assert make_labelled(scenes, tmp_path / "two", silent()).unit_ids != before


def test_a_recipe_that_draws_labels_says_how_they_are_named() -> None:
    with pytest.raises(RecipeError, match=r"labels\.suffix"):
        load_recipe("seg_ade20k", ["labels=null"])
