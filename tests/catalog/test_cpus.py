"""CPUs of an affinity and of a container's quota, in both versions of control groups."""

import os
from pathlib import Path

import pytest

from catalog.cpus import usable_cpus


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(
    ("said", "cpus"),
    [
        ("max 100000\n", 16),
        ("400000 100000\n", 4),
        ("250000 100000\n", 3),
        ("5000 100000\n", 1),
        ("6400000 100000\n", 16),
        ("", 16),
        ("odd\n", 16),
    ],
)
def test_a_quota_of_version_2(tmp_path: Path, said: str, cpus: int) -> None:
    (tmp_path / "cpu.max").write_text(said)
    assert usable_cpus(tmp_path) == cpus


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(("quota", "cpus"), [("-1\n", 16), ("200000\n", 4), ("10000\n", 1)])
def test_a_quota_of_version_1(tmp_path: Path, quota: str, cpus: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("50000\n")
    assert usable_cpus(tmp_path) == cpus


@pytest.mark.usefixtures("many")
def test_no_control_group_leaves_the_affinity(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path) == 16


def test_without_an_affinity_the_machine_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cpus(tmp_path) == 1
