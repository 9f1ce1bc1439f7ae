"""Floors and rooms hold, and each contract would notice a bad import."""

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


def test_the_contracts_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


PLANTED = [
    ("catalog/source/ranking.py", "detectors.canny", "An import goes down a floor"),
    ("training/model/objective.py", "pipeline.errors", "An import goes down a floor"),
    ("training/run/loop.py", "ray", "Below the pipeline nobody knows Ray"),
    ("pipeline/commands/build.py", "ray", "Of the pipeline, only these know Ray"),
    ("catalog/images.py", "torch", "The catalog knows no torch"),
    ("catalog/source/rows.py", "catalog.dataset.commits", "A room of catalog/"),
    ("training/data/loader.py", "training.run.loop", "A room of training/"),
    ("pipeline/unit/load.py", "pipeline.build.build", "A room of pipeline/"),
]


@pytest.fixture(scope="module")
def linted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the contracts say of a copy in which every import of `PLANTED` was planted."""
    folder = tmp_path_factory.mktemp("planted")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package)
    for module, planted, _ in PLANTED:
        with (folder / module).open("a") as file:
            file.write(f"\nimport {planted}\n")
    done = lint(folder)
    assert done.returncode == 1
    return done.stdout


@pytest.mark.parametrize(("module", "planted", "contract"), PLANTED)
def test_a_planted_import_is_caught(linted: str, module: str, planted: str, contract: str) -> None:
    verdicts = [line for line in linted.splitlines() if line.startswith(contract)]
    assert " BROKEN" in verdicts[0]
    importer = module.removesuffix(".py").replace("/", ".")
    assert f"{importer} -> {planted} (" in linted
