"""Real checkpoints for tests; a test is skipped, with a plain reason, where its own is absent."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detectors import weights

if TYPE_CHECKING:
    import torch

_BESIDE = Path(__file__).parents[2] / "shared" / "weights"


def need(name: str) -> "dict[str, torch.Tensor]":
    """Return a checkpoint's state dict; skips the test where it is not here."""
    need_file(name)
    return weights.load_state_dict(name)


def need_file(name: str) -> Path:
    """Return a checkpoint's file, or folder, ready to load; skips the test where it is not here."""
    if _BESIDE.is_dir():
        folders = [str(folder) for folder in sorted(_BESIDE.iterdir())]
        os.environ.setdefault(weights.FOLDERS, os.pathsep.join(folders))
    if weights.where(name) is None:
        pytest.skip(f"the checkpoint {name} is not here: controlnet-factory weights fetch {name}")
    return weights.resolve(name)
