"""Facts are read from the machine itself, and a probe leaves nothing behind."""

from pathlib import Path

import pytest

from catalog import storage
from pipeline.cluster import machine


@pytest.mark.parametrize(
    ("requirement", "installed", "met"),
    [
        ("torch>=2.11", {"torch": "2.15.0+cu130"}, True),
        ("torch>=2.11", {"torch": "2.10"}, False),
        ("torch>=2.11", {"torch": "2.12.0rc1"}, True),
        ("torch>=2.11", {}, False),
        ("opencv_python.headless>=5", {"opencv-python-headless": "5.0.0.93"}, True),
        ("ray[data,default]>=2.60", {"ray": "2.60.0"}, True),
        ("s3fs>=2026; extra == 's3'", {}, True),
        ("tomli>=1; python_version < '3'", {}, True),
    ],
)
def test_requirements_are_held_against_what_is_installed(
    requirement: str, installed: dict[str, str], met: bool
) -> None:
    assert (machine.unmet([requirement], installed) == {}) == met


def test_a_checkout_that_is_not_installed_knows_its_requirements(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = set(machine.requirements())
    monkeypatch.setattr(machine, "_PROJECT", "no-such-distribution")
    assert "ray[data,default]>=2.60" in machine.requirements()
    assert installed  # the metadata spells the same requirements in its own way


def test_looking_at_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "not" / "yet"
    found = machine.look(["mlsd_tiny"], str(out))
    assert found.storage_fault is None
    assert found.installed["ray"]
    assert found.missing_weights in ((), ("mlsd_tiny",))
    assert str(tmp_path) in found.free_bytes
    assert all(free > 0 for free in found.free_bytes.values())
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert f"File exists: '{tmp_path}/file'" in str(machine.probe(f"{tmp_path}/file/d"))
    assert "a local path or a URI that fsspec knows" in str(machine.probe("nosuch://bucket/d"))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_storage_that_replaces_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "create_once", storage.write_atomic)
    assert "commits would not be safe" in str(machine.probe(str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_object_storage_is_probed_the_same_way(s3: str) -> None:
    assert machine.probe(f"{s3}/new/d") is None
    assert storage.list_names(f"{s3}/new/d") == []
    assert "bucket does not exist" in str(machine.probe("s3://no-such-bucket-here/d"))
