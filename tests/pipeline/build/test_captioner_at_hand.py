"""Images without a text need BLIP: asked before any work, and of those images alone."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

from captioning import weights
from catalog.dataset.dataset import Dataset
from catalog.dataset.verify import verify
from pipeline.commands import cli
from pipeline.errors import Exit
from pipeline.ledger.remake import rebuild_sampled
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import load_recipe, shipped_recipes
from tests.rules import ANY_LOOK_FLAGS

SMALL = ["--set", "image.resolution=64", *ANY_LOOK_FLAGS[2:]]
SIDECAR = ["--set", "captions.captioner=sidecar"]


@pytest.fixture(autouse=True)
def _no_blip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(weights.FOLDERS, raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Three pictures; the first has a text beside it."""
    folder = tmp_path / "raw"
    folder.mkdir()
    draw = np.random.default_rng(1)
    for number in range(3):
        pixels = draw.integers(0, 256, (70, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "0.txt").write_text("a picture")
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Call the command line; return exit code and stderr."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["controlnet-factory", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return call


def captions(dataset: Path) -> list[str]:
    return sorted(Dataset.open(str(dataset)).view().table["caption"].to_pylist())


def test_the_papers_blip_paragraphs_have_blip_and_the_others_the_text_or_blip() -> None:
    made = {name: load_recipe(name).captions.captioner for name in shipped_recipes()}
    blip = {name for name, captioner in made.items() if captioner == "blip"}
    assert blip == {"hough", "seg_coco", "seg_ade20k", "normal_diode"}
    assert {made[name] for name in made.keys() - blip} == {"sidecar_or_blip"}


@pytest.mark.parametrize(
    ("captioner", "needed"), [([], 2), (["--set", "captions.captioner=blip"], 3)]
)
def test_raw_images_are_refused_before_any_work(
    raw: Path, tmp_path: Path, run: Callable[..., Any], captioner: list[str], needed: int
) -> None:
    command = ["build", "canny", "--local", "--images", raw, "--out", tmp_path / "d", *SMALL]
    code, told = run(*command, *captioner)
    assert code == Exit.USAGE
    told = " ".join(told.split())
    assert f"{needed} of 3 images are to be captioned by BLIP" in told
    assert "weights fetch blip" in told
    assert "captions.model=./FOLDER" in told
    assert "captions.captioner=sidecar" in told
    assert not (tmp_path / "d" / "recipe.json").exists()
    assert run(*command, *SIDECAR)[0] == Exit.DONE  # into the same folder
    assert captions(tmp_path / "d") == ["", "", "a picture"]


def test_a_planned_dataset_is_refused_too(
    raw: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    out = tmp_path / "d"
    assert run("plan", "canny", "--images", raw, "--out", out, *SMALL)[0] == Exit.DONE
    code, told = run("build", "canny", "--local", "--out", out, *SMALL)
    assert code == Exit.USAGE
    assert "2 of 3 images" in told
    assert "in another --out" in told
    assert not (out / "commits").exists()


def test_images_that_cannot_be_used_need_no_captioner(
    raw: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    Image.new("RGB", (50, 50)).save(raw / "0.png")
    for number in (1, 2):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(raw / f"{number}.png")
    small = ["--set", "rules.min_side=45"]
    command = ["build", "canny", "--local", "--images", raw, "--out", tmp_path / "d", *SMALL]
    assert run(*command, *small)[0] == Exit.DONE


def test_images_that_all_have_a_text_load_no_torch(raw: Path, tmp_path: Path) -> None:
    for number in range(3):
        (raw / f"{number}.txt").write_text(f"picture {number}")
    command = ["build", "canny", "--local", "--images", raw, "--out", tmp_path / "d", *SMALL]
    code = (
        "import sys\nfrom pipeline.commands import cli\n"
        f"sys.argv = {['controlnet-factory', *map(str, command)]!r}\n"
        "try:\n    cli.main()\nfinally:\n"
        "    print(sorted({'torch', 'transformers', 'huggingface_hub'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert captions(tmp_path / "d") == ["picture 0", "picture 1", "picture 2"]


def test_a_dataset_of_before_goes_on_with_its_own_captions(
    raw: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    """By the same command as ever, which names a shipped recipe and chooses no captions."""
    out, whole = tmp_path / "d", tmp_path / "whole"
    units = ["--set", "samples_per_unit=2", *SMALL]
    run("build", "canny", "--local", "--images", raw, "--out", whole, *units, *SIDECAR)
    run("plan", "canny", "--images", raw, "--out", out, *units, *SIDECAR)
    before = (out / "recipe.json").read_bytes()
    code, told = run("build", "canny", "--local", "--images", raw, "--out", out, *units)
    assert code == Exit.DONE
    assert "goes on with the captions it was begun with: sidecar" in told
    assert (out / "recipe.json").read_bytes() == before
    assert {path.name: path.read_bytes() for path in (out / "shards").iterdir()} == {
        path.name: path.read_bytes() for path in (whole / "shards").iterdir()
    }
    opened = Dataset.open(str(out))
    assert verify(opened) == []
    assert rebuild_sampled(opened, 2, Execution()) == []
    chosen = ["--set", "captions.captioner=blip"]
    code, told = run("build", "canny", "--local", "--out", out, *units, *chosen)
    assert code == Exit.FAILED
    assert "captions.captioner" in told
