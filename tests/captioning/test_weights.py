"""Where a captioner is looked for, and what is said when it is nowhere."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from captioning import weights
from captioning.errors import WeightsError

Hub = Callable[..., str]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder is named, and the hub has nothing."""
    monkeypatch.delenv(weights.FOLDERS, raising=False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", _no_hub)


def _no_hub(*_: Any, local_files_only: bool, **__: Any) -> str:
    where = "cached" if local_files_only else "served"
    raise FileNotFoundError(f"no such snapshot is {where}")


@pytest.fixture
def pinned(random_blip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the base model's pin be that of the random one."""
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in random_blip.iterdir()
    }
    pin = weights.Pin(revision=weights.PINS[weights.BASE].revision, files=files)
    monkeypatch.setitem(weights.PINS, weights.BASE, pin)


def copy(source: Path, target: Path) -> Path:
    target.mkdir(parents=True)
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_a_folder_is_taken_as_it_is(random_blip: Path) -> None:
    assert weights.locate(str(random_blip), None) == random_blip


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("model.safetensors", "neither model.safetensors nor .* nor pytorch_model.bin"),
        ("config.json", "no config.json"),
        ("tokenizer.json", "neither tokenizer.json nor vocab.txt"),
        (None, "not there"),
    ],
)
def test_a_folder_that_is_not_whole_says_what_is_missing(
    random_blip: Path, tmp_path: Path, gone: str | None, message: str
) -> None:
    folder = tmp_path / "blip"
    if gone is not None:
        (copy(random_blip, folder) / gone).unlink()
    for attempt in (weights.locate, weights.identity):
        with pytest.raises(WeightsError, match=message) as error:
            attempt(str(folder), None)
        assert "hf download" in str(error.value)


@pytest.mark.usefixtures("pinned")
def test_a_named_folder_is_taken_where_its_hashes_agree(
    random_blip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(random_blip, tmp_path / "w" / "blip-image-captioning-base")
    monkeypatch.setenv(weights.FOLDERS, f"/nowhere:{tmp_path / 'w'}")
    assert weights.locate(weights.BASE, None) == folder
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(WeightsError, match="another sha256"):
        weights.locate(weights.BASE, None)
    (folder / "vocab.txt").write_text("other words")
    with pytest.raises(WeightsError, match=r"model\.safetensors has another|vocab\.txt is no file"):
        weights.locate(weights.BASE, None)


def test_a_named_folder_without_known_hashes_is_not_trusted(
    random_blip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy(random_blip, tmp_path / "blip-image-captioning-large")
    monkeypatch.setenv(weights.FOLDERS, str(tmp_path))
    with pytest.raises(WeightsError, match="name the folder itself as the model"):
        weights.locate(weights.LARGE, None)


@pytest.mark.parametrize("cached", [True, False])
def test_a_snapshot_of_the_hub_is_taken_at_its_commit(
    random_blip: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    asked: list[tuple[str, str]] = []

    def snapshot(repo: str, *, revision: str, local_files_only: bool, **_: Any) -> str:
        if local_files_only and not cached:
            raise FileNotFoundError("not cached")
        asked.append((repo, revision))
        return str(random_blip)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    assert weights.locate(weights.LARGE, None) == random_blip
    assert asked == [(weights.LARGE, weights.PINS[weights.LARGE].revision)]


def test_weights_in_the_older_file_are_asked_for_second(
    random_blip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = copy(random_blip, tmp_path / "snapshot")
    (snapshot / "model.safetensors").unlink()

    def download(*_: Any, allow_patterns: list[str], **__: Any) -> str:
        if "pytorch_model.bin" in allow_patterns:
            (snapshot / "pytorch_model.bin").write_bytes(b"")
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert weights.locate(weights.BASE, None) == snapshot


@pytest.mark.parametrize(
    ("model", "then"),
    [
        (weights.BASE, "Then, here: CONTROLNET_FACTORY_WEIGHTS=FOLDER"),
        (weights.LARGE, "captions.model: FOLDER/blip-image-captioning-large"),
    ],
)
def test_one_error_names_all_that_was_tried_and_what_helps(
    monkeypatch: pytest.MonkeyPatch, model: str, then: str
) -> None:
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    with pytest.raises(WeightsError) as error:
        weights.locate(model, None)
    said = str(error.value)
    assert "CONTROLNET_FACTORY_WEIGHTS is not set" in said
    assert "cache: it has no snapshot of this commit" in said
    assert "hub: FileNotFoundError: no such snapshot is served" in said
    assert f"hf download {model} --revision {weights.PINS[model].revision}" in said
    assert then in said


def test_where_asks_no_network(
    random_blip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_cached(*_: Any, local_files_only: bool, **__: Any) -> str:
        assert local_files_only
        raise FileNotFoundError

    monkeypatch.setattr("huggingface_hub.snapshot_download", only_cached)
    assert weights.where(weights.BASE, None) is None
    assert weights.where(str(tmp_path / "nowhere"), None) is None
    assert weights.where(str(random_blip), None) == random_blip


def test_offline_the_hub_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: True)
    with pytest.raises(WeightsError, match="Hugging Face hub: HF_HUB_OFFLINE is set"):
        weights.locate(weights.BASE, None)
