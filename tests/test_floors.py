"""The floors hold, and the contract would notice a bad import."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("catalog", "detectors", "captioning", "training", "pipeline")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    line = [sys.executable, "-c", code, "--no-logo", "--no-cache"]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package)
    return tmp_path


def test_the_floors_hold(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "planted", "broken"),
    [
        ("catalog/source/ranking.py", "import detectors.canny", "An import goes down a floor"),
        (
            "training/model/objective.py",
            "import pipeline.recipe.recipe",
            "An import goes down a floor",
        ),
        ("training/run/loop.py", "import ray", "Only the pipeline knows Ray"),
        ("catalog/images.py", "import torch", "The catalog knows no torch"),
    ],
)
def test_a_planted_import_is_caught(copy: Path, module: str, planted: str, broken: str) -> None:
    path = copy / module
    path.write_text(path.read_text() + f"\n{planted}\n")
    done = lint(copy)
    assert done.returncode == 1
    assert f"{broken}" in done.stdout
    assert "BROKEN" in done.stdout
