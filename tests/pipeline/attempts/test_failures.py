"""Units that fail: tried again, told apart from images that fail, and never half committed."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog import storage, tables
from catalog.dataset.commits import Attempt, commit_unit
from catalog.dataset.dataset import Dataset
from catalog.dataset.shards import Block, ShardWriter
from catalog.dataset.verify import differences, verify
from catalog.errors import PlaceError
from detectors.base import Annotation, Result
from detectors.canny import CannySpec
from pipeline.attempts import quarantine
from pipeline.build.build import BuildResult
from pipeline.errors import BuildError
from pipeline.ledger.remake import rebuild_sampled
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe
from pipeline.unit.worker import UnitWorker
from tests.pipeline.plain_readers import assert_each_sample_once
from tests.rules import ANY_LOOK_FLAGS

Make = Callable[..., BuildResult]


def _failing(error: Exception, times: int) -> Callable[[ShardWriter, bytes], Block]:
    """Return a writer of blocks that works twice, and then raises so many times."""
    real, calls = ShardWriter.add_block, iter(range(100))

    def add_block(writer: ShardWriter, data: bytes) -> Block:
        if 2 <= next(calls) < 2 + times:
            raise error
        return real(writer, data)

    return add_block


def test_a_full_disk_ends_the_build_with_one_message_and_room_resumes_it(
    pictures: Path, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(pictures, tmp_path / "whole")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(ShardWriter, "add_block", _failing(full, 1000))
    out = tmp_path / "d"
    with pytest.raises(BuildError, match=r"no room is left to write .*: make room") as raised:
        make(pictures, out)
    assert "the same command resumes" in str(raised.value)
    assert not list(out.glob("commits/*"))
    assert not [path for path in (out / "tmp").rglob("*") if path.is_file()]
    monkeypatch.undo()
    make(pictures, out)
    assert differences(str(out), str(tmp_path / "whole")) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_small_disk(pictures: Path, small_disk: Path, tmp_path: Path, make: Make) -> None:
    make(pictures, tmp_path / "whole")
    out = small_disk / "d"
    command = ["build", "canny", "--local", "--images", str(pictures), "--out", str(out)]
    small = ["--set", "image.resolution=64", "--set", "samples_per_unit=3", *ANY_LOOK_FLAGS]
    line = [sys.executable, "-m", "pipeline", *command, *small]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no room is left" in done.stderr or "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    make(pictures, out)
    assert differences(str(out), str(tmp_path / "whole")) == []


def test_a_passing_failure_is_tried_again(
    pictures: Path, tmp_path: Path, make: Make, silent: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ShardWriter, "add_block", _failing(OSError(errno.EIO, "planted"), 1))
    seen = silent()
    result = make(pictures, tmp_path / "d", observer=seen)
    assert [failure.error for failure in seen.failures] == ["OSError"]
    assert result.status.samples == 10
    assert result.status.rejects == {}
    assert verify(Dataset.open(str(tmp_path / "d"))) == []


def test_a_unit_that_always_fails_stops_the_build(
    pictures: Path, tmp_path: Path, make: Make, silent: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ShardWriter, "add_block", _failing(RuntimeError("planted"), 1000))
    seen = silent()
    with pytest.raises(BuildError, match=r"RuntimeError: planted \(4 units failed\)"):
        make(pictures, tmp_path / "d", observer=seen)
    assert len(seen.failures) == 4


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_detector_that_draws_elsewhere_raises_the_alarm(
    pictures: Path, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two attempts at one unit run at once; the double marks each map with another number."""
    numbers = iter(range(1, 1000))

    def careless(spec: CannySpec, image: np.ndarray, *_: Any) -> Result:
        return Annotation(map=np.full(image.shape[:2], next(numbers) % 256, np.uint8))

    monkeypatch.setattr(CannySpec, "annotate", careless)
    real = UnitWorker.attempt

    def twice(worker: UnitWorker, index: int, folder: Path, **options: Any) -> Any:
        attempt = real(worker, index, folder, **options)
        second = tmp_path / f"second-{index}"
        second.mkdir()
        rival = real(worker, index, second, **options)
        if changed:
            rival = replace(rival, environment={**rival.environment, "device": "another"})
        commit_unit(worker._dataset, rival)
        return attempt

    monkeypatch.setattr(UnitWorker, "attempt", twice)
    changed = False
    with pytest.raises(BuildError, match=r"DeterminismError: .* two attempts in one environment"):
        make(pictures, tmp_path / "d")
    for folder in tmp_path.glob("second-*"):
        folder.rename(folder.with_name(f"old-{folder.name}"))
    changed = True
    status = make(pictures, tmp_path / "mixed").status
    assert status.samples == 10
    assert status.mismatches == 4
    assert_each_sample_once(tmp_path / "mixed")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("published", range(1, 4))
def test_what_dies_between_publish_and_commit_leaves_no_sample_twice(
    pictures: Path, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch, published: int
) -> None:
    """An attempt with other bytes dies once it has published some of its files."""
    out, real = tmp_path / "d", UnitWorker.attempt

    def dies(worker: UnitWorker, index: int, folder: Path, **options: Any) -> Any:
        attempt = real(worker, index, folder, **options)
        rival = tmp_path / f"rival-{index}"
        rival.mkdir()
        other = plant_other_bytes(real(worker, index, rival, **options))
        files = {".tar": other.tar, ".parquet": other.rows, ".held": other.held}
        for end, path in list(files.items())[:published]:
            assert path is not None
            name = f"{index:06d}-{other.unit_id[:8]}{end}"
            storage.publish(path, storage.join(str(out), "shards", name))
        return attempt

    monkeypatch.setattr(UnitWorker, "attempt", dies)
    assert make(pictures, out).status.samples == 10
    assert_each_sample_once(out)
    assert verify(Dataset.open(str(out))) == []


def plant_other_bytes(attempt: Attempt) -> Attempt:
    """Return an attempt of other bytes, as another environment might make, with a held tar."""
    with attempt.tar.open("ab") as file:
        file.write(bytes(10240))
    with attempt.rows.open("ab") as file:
        file.write(b"x")
    held = attempt.held or attempt.tar.with_suffix(".more")
    held.write_bytes(b"held")
    return replace(attempt, held=held, environment={**attempt.environment, "device": "another"})


def test_what_no_worker_survives_is_given_up_after_a_bounded_number_of_deaths(
    pictures: Path, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Marks of attempts that died are planted; no image is to blame."""
    make(pictures, tmp_path / "d")
    unit = Dataset.open(str(tmp_path / "d")).unit_ids[1]
    (tmp_path / "d" / "commits" / f"{unit}.json").unlink()
    marks = tmp_path / "d" / "attempts"
    marks.mkdir()
    owner = json.dumps({"host": "elsewhere", "process": 1})
    for name in ("run.local", *(f"{unit}.local.{number}" for number in range(6))):
        (marks / f"{name}.json").write_text(owner)
    (marks / f".{unit}.local.6.json.0123.tmp").write_text("")  # of one that died in writing it
    seen: list[str] = []
    monkeypatch.setattr("pipeline.attempts.quarantine.examine", lambda *_: seen.append("examined"))
    result = make(pictures, tmp_path / "d")
    assert result.status.samples == 10  # given up once, its marks forgotten, and tried again
    assert seen == []
    assert not marks.exists()


@pytest.mark.parametrize("code", [1, -15])
def test_only_a_signal_of_its_own_accuses_an_image(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A traceback tells of an outage while the unit is examined, a SIGTERM of who stopped it."""
    monkeypatch.setattr(quarantine, "_run_child", lambda *_: (1, code, "OSError: stale handle"))
    rows = [{"sha256": letter * 64} for letter in "ab"]
    with pytest.raises(PlaceError, match="cannot be examined: OSError: stale handle"):
        quarantine.examine(str(tmp_path), recipe, Execution(), rows)
    assert not (tmp_path / "quarantine").exists()


def _plan_with_faults(
    pictures: Path, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch, *, every: bool
) -> list[dict[str, Any]]:
    """Return a plan's rows of the odd pictures: one, or each, lets nothing else run."""
    images = tmp_path / "in"
    shutil.copytree(pictures, images)
    for path in (images / "odd").glob("0*.[jp][pn]g" if every else "01.jpg"):
        path.write_bytes(path.read_bytes() + b"a planted fault")
    make(images, tmp_path / "d")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "faults"))
    (tmp_path / "fault").write_text("clutch")
    monkeypatch.setenv("CONTROLNET_FACTORY_TEST_FAULT", str(tmp_path / "fault"))
    rows = tables.read_table(str(tmp_path / "d" / "plan.parquet")).to_pylist()
    return [row for row in rows if "/odd/" in row["uri"]]


def test_an_image_that_takes_for_ever_alone_is_set_aside(
    pictures: Path, tmp_path: Path, make: Make, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = _plan_with_faults(pictures, tmp_path, make, monkeypatch, every=False)
    out, (killer,) = str(tmp_path / "d"), [row for row in rows if "01." in row["uri"]]
    quarantine.examine(out, recipe, Execution(image_timeout=1), rows)
    aside = quarantine.quarantined(out, [row["sha256"] for row in rows])
    assert aside == {killer["sha256"]: "it took longer than 1 s"}


def test_a_place_where_every_image_takes_for_ever_accuses_none(
    pictures: Path, tmp_path: Path, make: Make, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = _plan_with_faults(pictures, tmp_path, make, monkeypatch, every=True)
    with pytest.raises(
        PlaceError, match=r"each of 2 images takes longer than 0.5 s .*--image-time"
    ):
        quarantine.examine(str(tmp_path / "d"), recipe, Execution(image_timeout=0.5), rows[:2])
    assert not (tmp_path / "d" / "quarantine").exists()


def test_a_unit_is_examined_without_its_source(
    pictures: Path, tmp_path: Path, make: Make, recipe: Recipe
) -> None:
    source = tmp_path / "in"
    shutil.copytree(pictures, source)
    make(source, tmp_path / "d")
    source.rename(tmp_path / "away")
    for folder in ("even", "odd"):  # each a mount of its own
        (source / folder).mkdir(parents=True)
    rows = tables.read_table(str(tmp_path / "d" / "plan.parquet")).to_pylist()
    with pytest.raises(PlaceError, match=r"cannot be examined: (.|\n)*mounted"):
        quarantine.examine(str(tmp_path / "d"), recipe, Execution(), rows[:3])
    assert not (tmp_path / "d" / "quarantine").exists()


def test_a_rebuilt_unit_leaves_alone_what_was_set_aside(
    pictures: Path, tmp_path: Path, make: Make
) -> None:
    """It would end the process that verifies."""
    make(pictures, tmp_path / "whole")
    killer = Dataset.open(str(tmp_path / "whole")).view().table["sha256"][4].as_py()
    aside = tmp_path / "d" / "quarantine"
    aside.mkdir(parents=True)
    (aside / f"{killer}.json").write_text('{"detail": "the process died: SIGSEGV"}')
    assert make(pictures, tmp_path / "d").status.rejects == {"failed:ProcessDied": 1}
    assert rebuild_sampled(Dataset.open(str(tmp_path / "d")), 4, Execution(threads=1)) == []
