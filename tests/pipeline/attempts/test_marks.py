"""What counts as the death of an attempt: nothing but the end of its own process, and lately."""

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog import storage
from catalog.errors import StorageUnavailable
from pipeline.attempts import marks
from pipeline.errors import BuildError

UNIT = "0" * 32
MINUTE, HOUR = 60.0, 3600.0
DRIVER, ACTOR = ("head", 11), ("node", 12)

Plant = Callable[..., None]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """Leave a mark with an owner, last touched so many seconds ago."""
    folder = tmp_path / "attempts"
    folder.mkdir()

    def run(name: str, owner: tuple[str, int], seconds: float) -> None:
        path = folder / f"{name}.json"
        path.write_text(json.dumps({"host": owner[0], "process": owner[1]}))
        os.utime(path, (time.time() - seconds,) * 2)

    return run


def deaths(tmp_path: Path, run: str = "now") -> int:
    return marks.count(str(tmp_path), UNIT, run)


def test_an_actor_that_died_counts_in_its_build_and_in_the_next(
    plant: Plant, tmp_path: Path
) -> None:
    plant(f"{UNIT}.now.1", ACTOR, 10)
    assert deaths(tmp_path) == 1
    plant("run.before", DRIVER, HOUR)
    plant(f"{UNIT}.before.1", ACTOR, HOUR + 10 * MINUTE)
    assert deaths(tmp_path) == 2


def test_what_ended_with_its_whole_cluster_does_not_count(plant: Plant, tmp_path: Path) -> None:
    """However often a person or a cloud ends it: the same units are in hand each time."""
    for number in range(3):
        plant(f"run.before{number}", DRIVER, HOUR)
        plant(f"{UNIT}.before{number}.1", ACTOR, HOUR + 50)
    assert deaths(tmp_path) == 0


def test_a_build_in_one_process_counts_where_that_has_ended(plant: Plant, tmp_path: Path) -> None:
    plant("run.before", DRIVER, 10)
    plant(f"{UNIT}.before.1", DRIVER, 10)
    assert deaths(tmp_path) == 1
    alive = (platform.node(), os.getppid())
    plant("run.beside", alive, 10)
    plant(f"{UNIT}.beside.1", alive, 10)
    assert deaths(tmp_path) == 1


def test_what_a_build_left_that_ended_in_an_orderly_way_does_not_count(
    plant: Plant, tmp_path: Path
) -> None:
    plant(f"{UNIT}.before.1", DRIVER, 10)
    assert deaths(tmp_path) == 0


def test_a_mark_is_forgotten_after_a_day(plant: Plant, tmp_path: Path) -> None:
    plant(f"{UNIT}.now.1", ACTOR, 23 * HOUR)
    plant(f"{UNIT}.now.2", ACTOR, 25 * HOUR)
    assert deaths(tmp_path) == 1


def test_word_of_a_slow_image_is_no_death(tmp_path: Path) -> None:
    marks.suspect(str(tmp_path), UNIT, "now", ["a" * 64])
    marks.suspect(str(tmp_path), UNIT, "now", ["b" * 64])
    assert deaths(tmp_path) == 0
    assert marks.suspects(str(tmp_path), UNIT) == {"a" * 64, "b" * 64}
    marks.acquit(str(tmp_path), UNIT)
    assert marks.suspects(str(tmp_path), UNIT) == set()


def test_a_build_that_ends_in_an_orderly_way_leaves_no_mark(tmp_path: Path) -> None:
    uri = str(tmp_path)

    def stop() -> None:
        with marks.running(uri, "now"):
            storage.write_atomic(storage.join(uri, "attempts", f"{UNIT}.now.1.json"), b"{}")
            found = {path.name[:4] for path in (tmp_path / "attempts").iterdir()}
            assert found == {"run.", "0000"}
            raise BuildError("stopped")

    with pytest.raises(BuildError):
        stop()
    assert list((tmp_path / "attempts").iterdir()) == []


def test_a_storage_in_trouble_hides_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(uri: str) -> None:
        raise StorageUnavailable(uri)

    def stop() -> None:
        with marks.running(str(tmp_path), "now"):
            monkeypatch.setattr(storage, "remove", unavailable)
            raise BuildError("planted")

    with pytest.raises(BuildError, match="planted"):
        stop()
