"""A run starts from another's ControlNet only beside the UNet that this one learned with."""

import logging
import shutil
from pathlib import Path

import pytest

from tests.random_base import write_random_base
from tests.training.stepping import Steps, forget_accelerate, rows_of
from training.errors import ControlNetError
from training.run import starting
from training.run.checkpoint import list_checkpoints
from training.run.loop import train_on
from training.settings.phases import Phase

UNLOCKED = (Phase(trains="full", until=1), Phase(trains="unlocked", learning_rate=1e-3))


@pytest.fixture
def other_base(tmp_path) -> str:
    write_random_base(str(tmp_path / "other_base"), seed=1, resolutions=2, layers=1)
    return str(tmp_path / "other_base")


@pytest.fixture
def start(make_config, view_type, tmp_path):
    """Train a run, and return what starts another from a part of it."""

    def make(part: str = "", *, first: dict | None = None, **changes):
        train_on(
            make_config(out=str(tmp_path / "first"), **(first or {"steps": 1})),
            rows_of(view_type()),
            Steps(),
        )
        forget_accelerate()
        own = {"steps": 1, "start_from": str(tmp_path / "first" / part), **changes}
        own.setdefault("out", str(tmp_path / "second"))
        try:
            return train_on(make_config(**own), rows_of(view_type()), Steps())
        finally:
            forget_accelerate()

    return make


@pytest.mark.parametrize("part", ["", "checkpoints/000002"])
def test_a_unet_that_learned_is_not_dropped_in_silence(start, tmp_path, part):
    with pytest.raises(ControlNetError, match=r"phase unlocked[\s\S]*checkpoint of before"):
        start(part, first={"steps": 2, "phases": UNLOCKED, "checkpoint_every": 1})
    assert not list_checkpoints(tmp_path / "second")


def test_what_the_refusal_names_starts(start, base_folder, tmp_path):
    """A checkpoint of before the phase; the base with the UNet that learned, in any precision."""
    first = {"steps": 2, "phases": UNLOCKED, "checkpoint_every": 1}
    assert start("checkpoints/000001", first=first).steps == 1
    joined = tmp_path / "joined"
    shutil.copytree(base_folder, joined)
    shutil.copytree(tmp_path / "first" / "unet", joined / "unet", dirs_exist_ok=True)
    for precision in ("no", "bf16"):
        out = str(tmp_path / precision)
        changes = {"base": str(joined), "mixed_precision": precision, "out": out}
        assert start(first=first, **changes).steps == 1


def test_another_base_is_warned_of(start, other_base, base_folder, caplog):
    with caplog.at_level(logging.WARNING, starting.__name__):
        start(base=other_base)
    assert "was trained beside another base" in caplog.text
    assert base_folder in caplog.text


def test_the_same_base_is_known_in_another_precision(start, caplog):
    with caplog.at_level(logging.WARNING, starting.__name__):
        start(mixed_precision="bf16")
    assert "another base" not in caplog.text


def test_a_folder_from_elsewhere_passes(make_config, view_type, tmp_path, other_base):
    train_on(make_config(steps=1, out=str(tmp_path / "first")), rows_of(view_type()), Steps())
    (tmp_path / "first" / "train.json").unlink()
    start = make_config(
        steps=1, base=other_base, start_from=str(tmp_path / "first"), out=str(tmp_path / "second")
    )
    assert train_on(start, rows_of(view_type()), Steps()).steps == 1
    assert Path(start.out, "config.json").is_file()
