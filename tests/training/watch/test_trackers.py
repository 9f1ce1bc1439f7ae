"""What Weights & Biases is told; a stand-in takes it, as nothing is sent from a test."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from training.errors import TrainingError
from training.watch.trackers import wandb_mirror


def test_a_run_is_mirrored_and_goes_on_as_itself(tmp_path, monkeypatch):
    begun: list[dict[str, Any]] = []
    ended: list[bool] = []

    def init(**told: Any) -> SimpleNamespace:
        begun.append(told)
        return SimpleNamespace(finish=lambda: ended.append(True))

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    for _ in range(2):
        with wandb_mirror(tmp_path / "run", "project", {"steps": 3}):
            assert len(ended) < len(begun)
    assert len(ended) == 2
    assert begun[0] == begun[1]
    assert begun[0]["project"] == "project"
    assert begun[0]["sync_tensorboard"] is True
    assert begun[0]["resume"] == "allow"
    with wandb_mirror(tmp_path / "other", "project", {}):
        pass
    assert begun[2]["id"] != begun[0]["id"]


def test_nothing_is_mirrored_unasked(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with wandb_mirror(tmp_path / "run", None, {}):
        pass
    assert not (tmp_path / "run").exists()


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import raises
    with (
        pytest.raises(TrainingError, match="pip install wandb"),
        wandb_mirror(tmp_path / "run", "project", {}),
    ):
        pass
