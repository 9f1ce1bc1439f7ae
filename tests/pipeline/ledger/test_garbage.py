"""`gc` takes what died builds left and nothing else, on a local disk and on object storage."""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from catalog import storage
from catalog.dataset import busy, tombstones
from catalog.dataset import compact as compaction
from catalog.dataset.dataset import Dataset
from catalog.dataset.verify import differences, verify
from catalog.errors import DatasetError
from pipeline.attempts import marks
from pipeline.attempts.outcome import UnitReport
from pipeline.build.build import BuildResult
from pipeline.commands import cli
from pipeline.errors import Exit
from pipeline.ledger import garbage
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe
from pipeline.unit.worker import UnitWorker

HOUR = 3600.0


class Killed(BaseException):
    """Ends a build where no handler catches it, as SIGKILL would."""


def age(root: Path, hours: float, *names: str) -> None:
    then = time.time() - hours * HOUR
    for path in [root / name for name in names] or root.rglob("*"):
        os.utime(path, (then, then))


def clean(dataset: Path | str) -> list[str]:
    opened = Dataset.open(str(dataset))
    found = garbage.find(opened, older_than=HOUR)
    assert list(garbage.remove(opened, found, older_than=HOUR)) == found
    assert garbage.find(opened, older_than=HOUR) == []
    return [one.name for one in found]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("finished") / "d"


@pytest.fixture
def built(pictures: Path, finished: Path, tmp_path: Path, make: Callable[..., BuildResult]) -> Path:
    """A finished dataset of four units, two hours old, that a test may spoil."""
    if not finished.exists():
        make(pictures, finished)
    shutil.copytree(finished, tmp_path / "d")
    age(tmp_path / "d", 2)
    return tmp_path / "d"


@pytest.mark.parametrize("seed", range(20))
def test_whatever_died_where_the_dataset_stays_good(built: Path, finished: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    opened = Dataset.open(str(built))
    expected = set()
    before = set((built / "shards").iterdir())
    for number in range(generator.integers(1, 12)):
        *others, running = opened.unit_ids  # an orphan of a marked unit would stay
        index = int(generator.integers(len(others)))
        unit = others[index]
        suffix = ("tar", "parquet", "held")[generator.integers(3)]
        name = (
            f"tmp/{unit}.{number:08x}/samples.tar",
            f"shards/.{index:06d}.{suffix}.{number:032x}.tmp",
            f"commits/.{unit}.json.{number:032x}.tmp",
            f".plan.parquet.{number:032x}.tmp",
            f"shards/{index:06d}-{unit[:8]}-{number:016x}.{suffix}",
            f"shards/{index + 1:06d}-{unit[:8]}.{suffix}",
            f"attempts/{running}.run.{number:08x}.json",
        )[generator.integers(7)]
        path = built / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(generator.bytes(int(generator.integers(1000))))
        old = bool(generator.integers(2))
        age(built, 2 if old else 0.5, name)
        expected -= {name}
        expected |= {name} if old else set()
    assert set(clean(built)) == expected
    young = [path.name for path in (built / "shards").glob("[0-9]*") if path not in before]
    assert [line.partition(":")[0] for line in verify(opened)] == sorted(
        f"shards/{name}" for name in young
    )
    age(built, 2)
    clean(built)
    assert verify(opened) == []
    assert differences(str(built), str(finished)) == []


def dies_before_its_commit(
    dataset: str, recipe: Recipe, execution: Execution, pending: Sequence[int], run: str
) -> Iterator[UnitReport]:
    """Do all of a unit but its commit, and tidy nothing, as a killed process would."""
    unit = Dataset.open(dataset).unit_ids[pending[0]]
    storage.write_atomic(storage.join(dataset, "attempts", f"{unit}.killed.1.json"), b"{}")
    folder = Path(dataset, "tmp", f"{unit}.1")
    folder.mkdir(parents=True)
    attempt = UnitWorker(dataset, recipe, execution).attempt(pending[0], folder)
    storage.publish(
        attempt.tar, storage.join(dataset, "shards", f"{pending[0]:06d}-{unit[:8]}.tar")
    )
    raise Killed
    yield


def test_a_killed_build_is_cleaned_and_goes_on(
    pictures: Path, built: Path, tmp_path: Path, make: Callable[..., BuildResult]
) -> None:
    out = tmp_path / "killed"
    with pytest.raises(Killed):
        make(pictures, out, executor=dies_before_its_commit)
    opened = Dataset.open(str(out))
    assert garbage.find(opened, older_than=HOUR) == []
    age(out, 2)
    found = garbage.find(opened, older_than=HOUR)
    assert [one.kind for one in found] == ["orphan", *["attempt"] * 3]
    unit = found[0].unit_id
    mark = f"attempts/{unit}.other.1.json"
    storage.write_atomic(str(out / mark), b"{}")  # another build begins with it just now
    gone = list(garbage.remove(opened, found, older_than=HOUR))
    assert [one.kind for one in gone] == ["attempt"] * 3
    age(out, 2, mark)
    assert clean(out) == [found[0].name]
    assert list((out / "tmp").iterdir()) == []
    assert make(pictures, out).status.units_done == 4
    assert differences(str(out), str(built)) == []


def test_a_shard_committed_since_it_was_listed_stays(built: Path) -> None:
    opened = Dataset.open(str(built))
    unit = opened.unit_ids[0]
    commit = built / "commits" / f"{unit}.json"
    truth = commit.read_bytes()
    commit.unlink()
    manifest = (built / "manifest.parquet").read_bytes()
    (built / "manifest.parquet").unlink()
    found = garbage.find(opened, older_than=HOUR)
    assert {one.unit_id for one in found} == {unit}
    commit.write_bytes(truth)
    (built / "manifest.parquet").write_bytes(manifest)
    assert list(garbage.remove(opened, found, older_than=HOUR)) == []
    assert verify(opened) == []


def test_what_is_not_ours_and_what_cannot_be_judged_stays(built: Path) -> None:
    for name in ("shards/notes.txt", "shards/0-a.tar", "shards/below/000000-01234567.tar", "x.tmp"):
        (built / name).parent.mkdir(exist_ok=True)
        (built / name).write_text("mine")
    age(built, 2)
    assert clean(built) == []
    next((built / "commits").iterdir()).write_text("{")
    with pytest.raises(DatasetError, match="not a commit"):
        garbage.find(Dataset.open(str(built)), older_than=0)


class KilledCompaction(BaseException):
    """Ends a compaction between two of its steps."""


@pytest.mark.parametrize("step", ["fold", "_fold_subsets", "_verify"])
def test_a_killed_compaction_is_ended_before_anything_is_swept(
    built: Path,
    pictures: Path,
    step: str,
    make: Callable[..., BuildResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = Dataset.open(str(built))
    opened.write_subset(4, policy="top", seed=0)
    tombstones.bury(opened.uri, opened.view().keys()[:1])
    left = opened.view().keys()

    def killed(*_: object) -> None:
        raise KilledCompaction

    with monkeypatch.context() as patch:
        patch.setattr(Dataset if step == "fold" else compaction, step, killed)
        with pytest.raises(KilledCompaction):
            compaction.compact(opened)
    age(built, 2)
    before = sorted(path.name for path in (built / "shards").iterdir())
    with pytest.raises(DatasetError, match="compact"):
        garbage.find(opened, older_than=HOUR)
    make(pictures, built)
    assert sorted(path.name for path in (built / "shards").iterdir()) == before
    assert [opened.view().read(at).key for at in range(len(left))] == left
    compaction.compact(opened)
    assert [opened.view("4").read(at).key for at in range(3)] == left[:3]
    assert verify(opened) == []
    assert clean(built) == []


def test_while_a_compaction_runs_nothing_is_swept(
    built: Path, pictures: Path, make: Callable[..., BuildResult]
) -> None:
    opened = Dataset.open(str(built))
    scratch = built / "tmp" / "compact.01234567" / "x.tar"
    scratch.parent.mkdir(parents=True)
    scratch.write_bytes(b"being written")
    new = built / "shards" / f"000000-{opened.unit_ids[0][:8]}-{'0' * 16}.tar"
    with busy.marked(opened.uri, busy.COMPACT):
        new.write_bytes(b"published, not named yet")
        assert not make(pictures, built).changed
        assert (scratch.exists(), new.exists()) == (True, True)
        age(built, 2, "tmp/compact.01234567/x.tar", f"shards/{new.name}")
        with pytest.raises(DatasetError, match="compaction runs"):
            garbage.find(opened, older_than=0)
    assert not make(pictures, built).changed
    assert (scratch.exists(), new.exists()) == (True, False)
    assert clean(built) == ["tmp/compact.01234567/x.tar"]


def test_what_a_card_copies_stays_while_it_is_written(
    built: Path, pictures: Path, make: Callable[..., BuildResult]
) -> None:
    copy = built / "tmp" / "card.abc" / "000000.tar"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"a subset of hours")
    age(built, 2, "tmp/card.abc/000000.tar")
    with busy.marked(str(built), busy.CARD):
        make(pictures, built)
        assert clean(built) == []
    assert clean(built) == ["tmp/card.abc/000000.tar"]


def test_what_an_attempt_of_hours_holds_stays_as_long_as_its_mark_is_touched(
    pictures: Path, built: Path, make: Callable[..., BuildResult]
) -> None:
    """Maps of rejected images are few: their tar may be written to once in hours."""
    opened = Dataset.open(str(built))
    unit = opened.unit_ids[1]
    (built / "commits" / f"{unit}.json").unlink()
    (built / "manifest.parquet").unlink()
    held = built / "tmp" / f"{unit}.01234567" / "samples.held"
    held.parent.mkdir(parents=True)
    held.write_bytes(b"")
    with marks.marked(opened.uri, unit, "run"):
        age(built, 2, f"tmp/{unit}.01234567/samples.held")
        assert clean(built) == []
        (mark,) = (built / "attempts").iterdir()
        age(built, 2, f"attempts/{mark.name}")
        assert len(garbage.find(opened, older_than=HOUR)) == 3  # its two files in shards, too
    assert len(clean(built)) == 3


def test_an_attempt_touches_its_mark(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busy, "TOUCHED_EACH", 0.01)
    with marks.marked(str(built), "0" * 32, "run"):
        (mark,) = (built / "attempts").iterdir()
        age(built, 2, f"attempts/{mark.name}")
        deadline = time.time() + 30
        while time.time() - mark.stat().st_mtime > HOUR and time.time() < deadline:
            time.sleep(0.01)
        assert time.time() - mark.stat().st_mtime < HOUR
        assert busy.alive(str(built)) == [mark.name.removesuffix(".json")]
    assert list((built / "attempts").iterdir()) == []


def test_on_object_storage(s3: str, built: Path) -> None:
    out = f"{s3}/d"
    for path in built.rglob("*"):
        if path.is_file():
            storage.publish(path, storage.join(out, path.relative_to(built).as_posix()))
    opened = Dataset.open(out)
    before = {entry.name: entry.bytes for entry in storage.walk(out)}
    orphan = storage.join(out, "shards", f"000000-{opened.unit_ids[0][:8]}-{'0' * 16}.tar")
    storage.write_atomic(orphan, b"12345")
    assert garbage.find(opened, older_than=HOUR) == []
    (found,) = garbage.find(opened, older_than=0)
    assert (found.kind, found.bytes, found.unit_id) == ("orphan", 5, opened.unit_ids[0])
    assert list(garbage.remove(opened, [found], older_than=0)) == [found]
    assert {entry.name: entry.bytes for entry in storage.walk(out)} == before
    assert verify(opened) == []


def test_the_command(
    built: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = "shards/.x.0.tmp"
    (built / left).write_bytes(b"123")
    age(built, 2.5)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["controlnet-factory", "gc", str(built), *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr().out

    assert run("--older-than", "3") == (Exit.DONE, "removed 0 files, 0 B\n")
    code, shown = run("--dry-run")
    assert code == Exit.DONE
    assert shown == f"{left}: temporary, 3 B, 2.5 h old\nwould remove 1 files, 3 B\n"
    assert (built / left).exists()
    assert "removed 1 files, 3 B" in run()[1]
    assert not (built / left).exists()
    assert run("--older-than", "-1")[0] == Exit.USAGE
