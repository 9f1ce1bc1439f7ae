"""Each judgement of `doctor`: good, doubtful and bad, with something to do where it is not good."""

from dataclasses import replace

import pytest

from pipeline.cluster import checks
from pipeline.cluster.checks import Check
from pipeline.cluster.machine import Machine

GIB = 1 << 30

GOOD = Machine(
    host="here",
    python="3.11.7",
    installed={"opencv-python-headless": "5.0", "torch": "2.15.0", "ray": "2.60.0", "numpy": "2.4"},
    unmet={},
    gpus=(),
    missing_weights=(),
    free_bytes={"/tmp": 50 * GIB},
    shared_memory=8 * GIB,
    storage_fault=None,
)


def has(*distributions: str) -> Machine:
    return replace(GOOD, installed=dict.fromkeys(distributions, "1.0"))


def with_gpus(count: int) -> Machine:
    return replace(GOOD, gpus=("L4",) * count)


@pytest.mark.parametrize(
    ("check", "level", "found"),
    [
        (checks.versions(GOOD)[0], "ok", "python 3.11.7, torch 2.15.0, ray 2.60.0"),
        (checks.opencv(GOOD), "ok", "opencv-python-headless 5.0 alone"),
        (checks.opencv(has("opencv-python-headless", "opencv-python")), "fault", " and "),
        (checks.opencv(has("opencv-python")), "fault", "cv2 comes from opencv-python;"),
        (checks.opencv(has()), "fault", "no package"),
        (checks.mediapipe(GOOD), "ok", "not installed"),
        (checks.mediapipe(has("mediapipe")), "fault", "mediapipe 1.0"),
        (checks.gpus(with_gpus(2), None), "ok", "torch sees 2 x L4"),
        (checks.gpus(with_gpus(2), 2), "ok", "torch sees 2 x L4, Ray 2"),
        (checks.gpus(with_gpus(2), 0), "warning", "Ray 0"),
        (checks.gpus(with_gpus(0), 1), "fault", "torch sees none, Ray 1"),
        (checks.device("cpu", [GOOD], may_grow=False), "ok", "cpu wanted"),
        (checks.device("cuda", [GOOD, with_gpus(1)], may_grow=False), "ok", "GPUs in all: 1"),
        (checks.device("cuda", [GOOD], may_grow=True), "warning", "no GPU is up"),
        (checks.device("cuda", [GOOD], may_grow=False), "fault", "no GPU is up"),
        (checks.weights(GOOD, [], all_needed=True), "ok", "none needed"),
        (checks.weights(GOOD, ["a", "b"], all_needed=True), "ok", "2 of 2 here"),
        (checks.storage_works(GOOD, "s3://b/d"), "ok", "s3://b/d: written, created only once"),
        (
            checks.storage_works(replace(GOOD, storage_fault="no such bucket"), "s3://b/d"),
            "fault",
            "s3://b/d: no such bucket",
        ),
        (checks.object_store(GOOD, 2 * GIB), "ok", "2.0 GiB, shared memory 8.0 GiB"),
        (checks.object_store(GOOD, 9 * GIB), "warning", "9.0 GiB"),
        (checks.object_store(GOOD, 1000), "fault", "1000 B"),
        (checks.same_everywhere([GOOD, GOOD]), "ok", "on 2 nodes"),
        (checks.same_everywhere([GOOD, has("torch")]), "warning", "torch 1.0 and 2.15.0"),
    ],
)
def test_judgements(check: Check, level: str, found: str) -> None:
    assert check.level == level
    assert found in check.found
    assert bool(check.remedy) == (level != "ok")


@pytest.mark.parametrize(
    ("free", "level"), [(GIB - 1, "fault"), (GIB, "warning"), (10 * GIB, "ok")]
)
def test_disks(free: int, level: str) -> None:
    (check,) = checks.free_disk(replace(GOOD, free_bytes={"/tmp": free}))
    assert check.level == level


@pytest.mark.parametrize(("all_needed", "level"), [(True, "fault"), (False, "warning")])
def test_missing_weights_are_named_and_told_how_to_get(all_needed: bool, level: str) -> None:
    lacking = replace(GOOD, missing_weights=("hed_bsds500", "mlsd_large"))
    check = checks.weights(lacking, ["a", "hed_bsds500", "mlsd_large"], all_needed=all_needed)
    assert check.level == level
    assert "1 of 3 here; not here: hed_bsds500, mlsd_large" in check.found
    assert "weights fetch hed_bsds500 mlsd_large --to FOLDER" in check.remedy


def test_each_unmet_requirement_is_a_fault_of_its_own() -> None:
    found = checks.versions(replace(GOOD, unmet={"torch": "torch>=3", "timm": "timm>=1"}))
    assert [check.level for check in found] == ["fault", "fault"]
    assert "torch>=3 is required, 2.15.0 is installed" in found[0].found
    assert "timm>=1 is required, none is installed" in found[1].found
