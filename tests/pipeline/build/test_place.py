"""What the place does wrong becomes no row: the unit fails, and a healthy place makes its bytes."""

import errno
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from catalog import storage, tables
from catalog.dataset.dataset import Dataset
from catalog.errors import CatalogError, DatasetError, DeterminismError, PlaceError
from detectors.base import Network, NetworkSpec, Result
from detectors.canny import CannySpec
from detectors.graph import Graph
from pipeline.attempts.health import check_share
from pipeline.attempts.outcome import UnitFailure
from pipeline.build.build import BuildResult
from pipeline.build.local import run_local
from pipeline.errors import BuildError
from pipeline.recipe.recipe import Recipe
from tests.pipeline.plain_readers import assert_as_undisturbed

Make = Callable[..., BuildResult]


@pytest.fixture
def healthy(pictures: Path, tmp_path: Path, make: Make) -> Path:
    """A source of its own, as others go away, with the dataset that is made of it."""
    source = tmp_path / "in"
    shutil.copytree(pictures, source)
    make(source, tmp_path / "healthy")
    return source


def before_the_units(change: Callable[[], Any]) -> Callable[..., Any]:
    """Return an executor: the scan is done, then something changes."""

    def run(*arguments: Any) -> Any:
        change()
        return run_local(*arguments)

    return run


def resumes_to_the_healthy_bytes(make: Make, source: Path, out: Path) -> None:
    assert not list(out.glob("commits/*"))
    assert not list(out.glob("shards/*"))
    make(source, out)
    assert_as_undisturbed(out, out.with_name("healthy"))


@pytest.mark.parametrize("leaves_a_folder", [True, False])
def test_a_source_that_is_unmounted_commits_nothing(
    healthy: Path, tmp_path: Path, make: Make, leaves_a_folder: bool
) -> None:
    away = tmp_path / "away"

    def unmount() -> None:
        if not away.exists():
            healthy.rename(away)
            if leaves_a_folder:
                healthy.mkdir()

    with pytest.raises(BuildError, match=r"/in.*mounted\?") as raised:
        make(healthy, tmp_path / "d", executor=before_the_units(unmount))
    assert "the same command resumes" in str(raised.value)
    shutil.rmtree(healthy, ignore_errors=True)
    away.rename(healthy)
    resumes_to_the_healthy_bytes(make, healthy, tmp_path / "d")


def test_a_file_that_is_deleted_alone_is_a_row(healthy: Path, tmp_path: Path, make: Make) -> None:
    delete = before_the_units((healthy / "odd" / "05.jpg").unlink)
    result = make(healthy, tmp_path / "d", executor=delete)
    assert result.status.samples == 9
    assert result.status.rejects == {"failed:FileNotFoundError": 1}


def test_a_folder_that_is_removed_below_its_source_is_a_row_each(
    healthy: Path, tmp_path: Path, make: Make
) -> None:
    alone = healthy / "one"
    alone.mkdir()
    (healthy / "odd" / "05.jpg").rename(alone / "05.jpg")
    result = make(healthy, tmp_path / "d", executor=before_the_units(lambda: shutil.rmtree(alone)))
    assert result.status.rejects == {"failed:FileNotFoundError": 1}


ERRORS = [
    PermissionError(errno.EACCES, "Permission denied"),
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ESTALE, "Stale file handle"),
    MemoryError("no room"),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_what_the_storage_says_of_itself_fails_the_unit(
    healthy: Path, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    real = storage.read_bytes

    def sick(uri: str, *place: int) -> bytes:
        if uri.startswith(healthy.as_uri()) and uri.endswith(("jpg", "png")):
            raise error
        return real(uri, *place)

    monkeypatch.setattr(storage, "read_bytes", sick)
    with pytest.raises(BuildError, match=type(error).__name__):
        make(healthy, tmp_path / "d")
    monkeypatch.undo()
    resumes_to_the_healthy_bytes(make, healthy, tmp_path / "d")


@pytest.mark.parametrize("step", ["load.decode", "pack.encode_jpeg", "maps.pack_maps"])
def test_memory_that_runs_out_for_a_moment_costs_no_image(
    healthy: Path,
    tmp_path: Path,
    make: Make,
    silent: type,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    module, _, name = step.rpartition(".")
    real = getattr(__import__(f"pipeline.unit.{module}", fromlist=[name]), name)
    calls = iter(range(1000))

    def short(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 1:
            raise MemoryError("no room")
        return real(*arguments, **options)

    monkeypatch.setattr(f"pipeline.unit.{step}", short)
    seen = silent()
    make(healthy, tmp_path / "d", observer=seen)
    assert len(seen.failures) == (step != "maps.pack_maps")  # canny holds no map
    assert_as_undisturbed(tmp_path / "d", tmp_path / "healthy")


DEVICE_ERRORS = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    torch.OutOfMemoryError("CUDA out of memory"),
]


@pytest.mark.parametrize("error", DEVICE_ERRORS, ids=repr)
def test_a_device_that_fails_after_some_calls_commits_no_failed_row(
    healthy: Path,
    tmp_path: Path,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    real, calls = CannySpec.annotate, iter(range(1000))

    def sticky(spec: CannySpec, *arguments: Any) -> Result:
        if next(calls) >= 2:
            raise error
        return real(spec, *arguments)

    monkeypatch.setattr(CannySpec, "annotate", sticky)
    with pytest.raises(BuildError, match=type(error).__name__):
        make(healthy, tmp_path / "d")
    monkeypatch.undo()
    resumes_to_the_healthy_bytes(make, healthy, tmp_path / "d")


class _Small(NetworkSpec):
    """A test double: a network that no memory suffices for."""

    checkpoint: str = "none"

    @property
    def identity(self) -> str:
        return "none"

    def load(self, device: str, precision: str) -> Network:
        def run(images: np.ndarray) -> list[Any]:
            raise torch.OutOfMemoryError("CUDA out of memory")

        return run


def test_no_memory_for_a_single_image_fails_the_unit(
    healthy: Path, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowded = before_the_units(lambda: monkeypatch.setattr(CannySpec, "network", _Small()))
    with pytest.raises(BuildError, match="OutOfMemoryError"):
        make(healthy, tmp_path / "d", executor=crowded)
    monkeypatch.undo()
    resumes_to_the_healthy_bytes(make, healthy, tmp_path / "d")


@pytest.fixture
def unreadable(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A source of which one file may not be read, also where the tests run as root."""
    path, real = healthy / "odd" / "05.jpg", Path.open

    def open_(self: Path, *arguments: Any, **options: Any) -> Any:
        if self == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_)
    yield path
    monkeypatch.undo()


def test_a_scan_that_may_not_read_a_file_says_so_and_plans_nothing(
    unreadable: Path, tmp_path: Path, make: Make
) -> None:
    with pytest.raises(CatalogError, match=r"05\.jpg.*Permission denied"):
        make(unreadable.parents[1], tmp_path / "d")
    assert not (tmp_path / "d" / "plan.parquet").exists()


def test_micro_batches_shrink_to_one_and_then_the_error_stands() -> None:
    graph = Graph([], more=[_Small()], device="cuda", micro_batch=4)
    (found, *_) = graph.run([np.zeros((8, 8, 3), np.uint8)] * 4)
    assert isinstance(found[_Small()], torch.OutOfMemoryError)
    assert graph.micro_batch == 1


def test_a_library_that_is_not_on_this_machine_fails_the_unit(
    healthy: Path, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("No module named 'simplejpeg'")

    monkeypatch.setattr("pipeline.unit.load.decode", away)
    with pytest.raises(BuildError, match="simplejpeg"):
        make(healthy, tmp_path / "d")
    assert not Dataset.open(str(tmp_path / "d")).status().rejects


def _every_image_fails(*_: Any) -> Result:
    raise ZeroDivisionError("of this machine's library")


def test_a_unit_of_which_most_images_fail_alike_is_not_committed(
    healthy: Path, tmp_path: Path, make: Make, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = recipe.model_copy(update={"samples_per_unit": 10})
    make(healthy, tmp_path / "whole", recipe=whole)
    monkeypatch.setattr(CannySpec, "annotate", _every_image_fails)
    message = r"10 of 10 images failed with ZeroDivisionError.*of this machine's library"
    with pytest.raises(BuildError, match=message):
        make(healthy, tmp_path / "d", recipe=whole)
    monkeypatch.undo()
    make(healthy, tmp_path / "d", recipe=whole)
    assert_as_undisturbed(tmp_path / "d", tmp_path / "whole")


def test_a_small_unit_may_be_unlucky(
    healthy: Path, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CannySpec, "annotate", _every_image_fails)
    assert make(healthy, tmp_path / "d").status.rejects == {"failed:ZeroDivisionError": 10}


def test_many_missing_files_are_the_place(healthy: Path, tmp_path: Path, make: Make) -> None:
    """Something else stands where the source was mounted."""

    def swap() -> None:
        if not (tmp_path / "away").exists():
            healthy.rename(tmp_path / "away")
            healthy.mkdir()
            (healthy / "else.txt").write_text("another disk")

    with pytest.raises(BuildError, match="images failed with FileNotFoundError"):
        make(healthy, tmp_path / "d", executor=before_the_units(swap))


def attempt_with(tmp_path: Path, **counts: int) -> Any:
    statuses = [status.replace("_", ":") for status, n in counts.items() for _ in range(n)]
    rows = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"status": statuses, "detail": ["why"] * len(statuses)}), rows)
    return SimpleNamespace(counts=Counter(statuses), rows=rows)


@pytest.mark.parametrize(
    ("counts", "limit", "passes"),
    [
        ({"failed_OSError": 8, "ok": 8}, 0.5, True),
        ({"failed_OSError": 9, "ok": 8}, 0.5, False),
        ({"failed_OSError": 7}, 0.5, True),
        ({"failed_OSError": 8}, 1.0, True),
        ({"failed_OSError": 8, "ok": 504}, 0.01, False),
        ({"failed_OSError": 8, "failed_ValueError": 8}, 0.5, True),
        ({"rejected_blur": 100}, 0.5, True),
        ({"failed_FileNotFoundError": 1}, 0.5, True),
        ({"failed_FileNotFoundError": 2, "ok": 1}, 0.5, False),
    ],
)
def test_the_share_that_may_fail_alike(
    tmp_path: Path, counts: dict[str, int], limit: float, passes: bool
) -> None:
    with nullcontext() if passes else pytest.raises(PlaceError, match="'why'"):
        check_share(attempt_with(tmp_path, **counts), limit)


def failure(host: str, machines: int) -> UnitFailure:
    return UnitFailure(
        index=0,
        unit_id="",
        error="OSError",
        detail="stale",
        fatal=False,
        of_the_place=True,
        host=host,
        machines=machines,
    )


def test_one_bad_node_of_two_does_not_end_the_build(
    healthy: Path, tmp_path: Path, make: Make
) -> None:
    """It fails whatever it gets, faster than the other works, and more units than may fail."""
    with pytest.raises(BuildError, match="stale"):
        make(healthy, tmp_path / "e", executor=lambda *_: (failure("bad", 1) for _ in range(9)))
    with pytest.raises(BuildError, match="stale"):
        make(
            healthy,
            tmp_path / "f",
            executor=lambda *_: (failure(f"bad{n % 2}", 2) for n in range(9)),
        )
    silent_rounds = iter(range(100))

    def until_the_rest_is_done(*arguments: Any) -> Any:
        next(silent_rounds)
        *others, pending, run = arguments
        yield from (failure("bad", 2) for _ in range(20 * (len(pending) > 1)))
        yield from run_local(*others, pending[:1], run)

    make(healthy, tmp_path / "d", executor=until_the_rest_is_done)
    assert next(silent_rounds) == 4  # a round a unit, though failures are tried twice again
    assert_as_undisturbed(tmp_path / "d", tmp_path / "healthy")


@pytest.mark.parametrize(
    ("error", "dataset", "fatal", "place"),
    [
        (OSError(errno.ENOSPC, "full"), "/data/d", True, True),
        (OSError(errno.ENOSPC, "full"), "s3://bucket/d", False, True),
        (DatasetError("other bytes"), "s3://bucket/d", True, True),
        (DeterminismError("other bytes"), "/data/d", True, False),
        (PermissionError(errno.EACCES, "no"), "/data/d", False, True),
    ],
)
def test_what_is_fatal_and_what_another_machine_may_do(
    error: Exception, dataset: str, fatal: bool, place: bool
) -> None:
    told = UnitFailure.of(error, index=0, unit_id="", dataset=dataset)
    assert (told.fatal, told.of_the_place) == (fatal, place)
    if fatal and place and isinstance(error, OSError):
        assert dataset in told.detail
    if dataset.startswith("s3") and isinstance(error, OSError):
        assert tempfile.gettempdir() in told.detail


def test_a_plan_that_cannot_be_read_from_here_is_not_fatal(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as raised:
        tables.open_parquet(str(tmp_path / "plan.parquet"))
    told = UnitFailure.of(raised.value, index=0, unit_id="", dataset=str(tmp_path))
    assert (told.fatal, told.of_the_place) == (False, True)
