"""Images that failed are tried again as units of a new generation; nothing else changes a byte."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from catalog import tables
from catalog.dataset import busy, tombstones
from catalog.dataset.compact import compact
from catalog.dataset.dataset import Dataset, View
from catalog.dataset.orphans import sweep_orphans
from catalog.dataset.verify import differences, verify
from catalog.errors import DatasetError
from detectors.canny import CannySpec
from pipeline.build.build import BuildResult, Executor, build
from pipeline.build.local import run_local
from pipeline.errors import BuildError
from pipeline.ledger import garbage
from pipeline.ledger.explain import explain
from pipeline.ledger.remake import rebuild_sampled
from pipeline.ledger.requery import requery
from pipeline.ledger.retry import Retried, retry_failed
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe
from pipeline.scan.source import Inputs
from tests.pipeline.silent import Silent

LOST = ["even/00.png", "odd/01.jpg", "odd/05.jpg", "odd/07.jpg"]

PATIENT = Execution(threads=2, max_failed_share_of_a_unit=1)
"""Records what an earlier version recorded: a source that was unmounted, image by image."""

COLUMNS = ["rank", "key", "block_sha256", "caption", "parameters", "length"]


def hide(source: Path, names: list[str]) -> None:
    for name in names:
        (source / name).rename(source.parent / Path(name).name)


def give_back(source: Path, names: list[str]) -> None:
    for name in names:
        (source.parent / Path(name).name).rename(source / name)


@pytest.fixture
def source(pictures: Path, tmp_path: Path, make: Callable[..., BuildResult]) -> Path:
    """A source of its own, with the dataset that is made of it, healthy."""
    shutil.copytree(pictures, tmp_path / "in")
    make(tmp_path / "in", tmp_path / "healthy")
    return tmp_path / "in"


@pytest.fixture
def sick(source: Path, tmp_path: Path, recipe: Recipe) -> Dataset:
    """A dataset of which four images failed; they are there again."""

    def without(*arguments: Any) -> Any:
        hide(source, LOST)
        return run_local(*arguments)

    out = str(tmp_path / "d")
    inputs = Inputs(images=[str(source)])
    result = build(recipe, out, inputs, PATIENT, executor=without, observer=Silent())
    assert result.status.rejects == {"failed:FileNotFoundError": len(LOST)}
    give_back(source, LOST)
    return Dataset.open(out)


def retry(dataset: Dataset, executor: Executor = run_local, **options: Any) -> Retried:
    execution = Execution(threads=2, **options)
    return retry_failed(dataset.uri, execution, executor=executor, observer=Silent())


def reopened(dataset: Dataset) -> Dataset:
    return Dataset.open(dataset.uri)


def rows(view: View) -> list[dict[str, Any]]:
    return list(view.table.select(COLUMNS).to_pylist())


def committed(dataset: Dataset) -> dict[Path, bytes]:
    """Return what must never change: source, plan, shards and commits."""
    root = Path(dataset.uri)
    found = [root / "recipe.json", root / "source.parquet", root / "plan.parquet"]
    found += [*(root / "shards").iterdir(), *(root / "commits").iterdir()]
    return {path: path.read_bytes() for path in found}


def is_healed(dataset: Dataset) -> None:
    """Say whether all reads of a dataset are those of the one that never was sick."""
    healed = reopened(dataset)
    healthy = Dataset.open(str(Path(dataset.uri).parent / "healthy"))
    assert rows(healed.view()) == rows(healthy.view())
    for index in range(len(healed.view())):
        assert healed.view().read(index) == healthy.view().read(index)
    assert healed.rejects().num_rows == 0
    assert verify(healed) == []
    status = healed.status()
    assert (status.samples, status.images, status.rejects) == (10, 10, {})
    assert status.units_done == status.units


def test_failed_images_are_healed_and_nothing_committed_changes(
    sick: Dataset, recipe: Recipe
) -> None:
    before = committed(sick)
    assert verify(sick) == []
    tried = retry(sick)
    assert (tried.planned, tried.left) == ({"failed:FileNotFoundError": 4}, {})
    assert tried.result is not None
    assert tried.result.units_run == 2
    is_healed(sick)
    assert before.items() <= committed(sick).items()
    assert len(reopened(sick).unit_ids) == len(sick.unit_ids) + 2
    assert reopened(sick).unit_ids[: len(sick.unit_ids)] == sick.unit_ids


def test_a_second_time_there_is_nothing_to_do(sick: Dataset) -> None:
    retry(sick)
    before = committed(sick)
    tried = retry(sick)
    assert (tried.planned, tried.result) == ({}, None)
    assert committed(sick) == before


def test_a_healthy_dataset_is_left_as_it_is(source: Path, tmp_path: Path) -> None:
    healthy = Dataset.open(str(tmp_path / "healthy"))
    shutil.copytree(healthy.uri, tmp_path / "copy")
    assert retry(healthy).result is None
    assert differences(healthy.uri, str(tmp_path / "copy")) == []


class _KilledError(BaseException):
    """A test double of a kill."""


@pytest.mark.parametrize("units", [0, 1, 2])
@pytest.mark.parametrize("by", ["retry-failed", "build"])
def test_killed_in_the_middle_it_goes_on(
    sick: Dataset, source: Path, make: Callable[..., BuildResult], units: int, by: str
) -> None:
    def dying(dataset: str, recipe: Recipe, execution: Execution, pending: Any, run: str) -> Any:
        yield from run_local(dataset, recipe, execution, pending[:units], run)
        raise _KilledError

    with pytest.raises(_KilledError):
        retry(sick, dying)
    half = reopened(sick)
    assert len(half.view()) == 6  # what readers see is what was folded
    assert half.status().samples == min(6 + 3 * units, 10)
    assert sum(half.status().rejects.values()) + half.status().samples == 10
    *uncommitted, unfolded = verify(half)
    assert "retry-failed" in unfolded
    assert len(uncommitted) == 2 - units
    assert all("no commit" in fault for fault in uncommitted)
    if by == "build":
        assert make(source, sick.uri).changed
    else:
        tried = retry(sick)
        assert (tried.result.units_run if tried.result else 0) == 2 - units
    is_healed(sick)
    assert not retry(sick).planned


def test_what_fails_again_stays_one_row_and_can_be_tried_again(sick: Dataset, source: Path) -> None:
    hide(source, LOST[1:3])
    with pytest.raises(BuildError, match="max-failed-share-of-a-unit"):
        retry(sick)
    tried = retry(sick, max_failed_share_of_a_unit=1)
    assert tried.left == {"failed:FileNotFoundError": 2}
    half = reopened(sick)
    assert half.status().samples == len(half.view()) == 8
    assert half.status().rejects == {"failed:FileNotFoundError": 2}
    assert half.rejects().num_rows == 2
    assert half.rejects()["uri"].null_count == 0
    assert verify(half) == []
    give_back(source, LOST[1:3])
    assert retry(sick).planned == {"failed:FileNotFoundError": 2}
    is_healed(sick)


def test_an_unfinished_build_is_finished_first(sick: Dataset) -> None:
    min((Path(sick.uri) / "commits").iterdir()).unlink()
    with pytest.raises(DatasetError, match="build command"):
        retry(sick)
    assert not (Path(sick.uri) / "plans").exists()


def test_an_image_that_was_set_aside_is_looked_at_again(sick: Dataset) -> None:
    failed = sick.rejects()["sha256"].to_pylist()
    aside = Path(sick.uri) / "quarantine"
    aside.mkdir()
    for sha256 in (failed[0], "0" * 64):
        (aside / f"{sha256}.json").write_text(json.dumps({"detail": "the process died: SIGSEGV"}))
    retry(sick)
    assert [path.stem for path in aside.iterdir()] == ["0" * 64]
    is_healed(sick)


def test_a_rule_that_refuses_a_healed_image_is_its_row(
    sick: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CannySpec, "annotate", lambda *_: 1 / 0)
    tried = retry(sick)
    assert tried.left == {"failed:ZeroDivisionError": 4}
    assert verify(reopened(sick)) == []


def test_what_was_taken_down_is_not_tried_again(sick: Dataset) -> None:
    failed = sick.rejects()["sha256"].to_pylist()
    tombstones.bury(sick.uri, [failed[0][:32]])
    assert retry(sick).planned == {"failed:FileNotFoundError": 3}
    healed = reopened(sick)
    assert len(healed.view()) == 9
    compact(healed)
    assert verify(healed) == []
    assert healed.status().rejects == {"removed": 1}


@pytest.mark.parametrize("folded", [True, False])
def test_a_healed_image_can_be_taken_down(sick: Dataset, folded: bool) -> None:
    kept = sick.view().keys()
    if folded:
        retry(sick)
    else:
        with pytest.raises(_KilledError):
            retry(sick, _all_then_killed)
    healed = next(key for key in healthy_keys(sick) if key not in kept)
    tombstones.bury(sick.uri, [healed, kept[0]])
    dataset = reopened(sick)
    if not folded:
        assert dataset.status().samples == 10 - 1  # of what is folded, one was taken down
        dataset.finalize()
    for _ in range(2):
        assert len(dataset.view()) == dataset.status().samples == 8
        assert dataset.status().rejects == {"removed": 2}
        compact(dataset)
        assert verify(dataset) == []
    for path in [Path(dataset.path("plan.parquet")), *Path(dataset.path("plans")).iterdir()]:
        texts = tables.read_table(str(path)).to_pylist()
        assert all(row["caption"] is None for row in texts if row["sha256"].startswith(healed))


def _all_then_killed(*arguments: Any) -> Any:
    yield from run_local(*arguments)
    raise _KilledError


def healthy_keys(dataset: Dataset) -> list[str]:
    return Dataset.open(str(Path(dataset.uri).parent / "healthy")).view().keys()


def test_subsets_are_cut_again_and_nest(sick: Dataset) -> None:
    sick.write_subset(2, policy="top", seed=0)
    sick.write_subset(3, policy="stratified", seed=5)
    tried = retry(sick)
    assert tried.result is not None
    healed, healthy = reopened(sick), Dataset.open(str(Path(sick.uri).parent / "healthy"))
    for policy, seed, size in (("top", 0, 2), ("stratified", 5, 3), ("top", 0, 5)):
        healthy.write_subset(size, policy=policy, seed=seed)  # type: ignore[arg-type]
    healed.write_subset(5, policy="top", seed=0)
    for name in ("2", "3-stratified-5", "5"):
        assert rows(healed.view(name)) == rows(healthy.view(name))
    assert healed.view("5").keys()[:2] == healed.view("2").keys()
    assert verify(healed) == []


@pytest.mark.usefixtures("on_disk")
def test_other_commands_see_each_image_once(sick: Dataset, recipe: Recipe, tmp_path: Path) -> None:
    retry(sick)
    healed = reopened(sick)
    answer = requery(healed, recipe)
    assert answer.before == answer.after == {"ok": 10}
    assert rebuild_sampled(healed, 100, Execution(threads=2)) == []
    assert garbage.find(healed, older_than=0) == []
    for name, inputs in (("a", Inputs(dataset=healed.uri)), ("b", Inputs(source=None))):
        if name == "b":
            inputs = Inputs(source=healed.path("source.parquet"))
        execution = Execution(threads=2, reuse=healed.uri)
        out = str(tmp_path / name)
        build(recipe, out, inputs, execution, executor=run_local, observer=Silent())
        assert rows(Dataset.open(out).view()) == rows(healed.view())


def test_a_lost_or_damaged_generation_is_told(sick: Dataset, source: Path) -> None:
    hide(source, LOST[:1])
    retry(sick)
    give_back(source, LOST[:1])
    retry(sick)
    first = Path(sick.path("plans", "000001.parquet"))
    plan = tables.read_table(str(first))
    kept = tables.read_metadata(str(first))
    swapped = plan.take(list(reversed(range(plan.num_rows))))
    first.write_bytes(tables.to_parquet(swapped, kept, row_group_size=3))
    assert any("000001.parquet" in fault for fault in verify(reopened(sick)))
    first.unlink()
    with pytest.raises(DatasetError, match=r"000001\.parquet"):
        _ = reopened(sick).unit_ids


def test_an_interrupted_fold_is_made_up_for(sick: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the manifest and the subsets, a call after it cuts them again."""
    sick.write_subset(2, policy="top", seed=0)
    real = Dataset.fold

    def killed(dataset: Dataset) -> None:
        real(dataset)
        raise _KilledError

    monkeypatch.setattr(Dataset, "fold", killed)
    with pytest.raises(_KilledError):
        retry(sick)
    monkeypatch.undo()
    retry(sick)
    assert reopened(sick).view("2").keys() == reopened(sick).view().keys()[:2]
    is_healed(sick)


def planned_with_a_shard(sick: Dataset) -> tuple[Dataset, Path]:
    """Plan a generation; return a dataset opened before, and a shard about to be committed."""
    early = reopened(sick)
    assert not early.pending()
    with pytest.raises(_KilledError):
        retry(sick, _killed_at_once)
    late = reopened(sick)
    first = late.pending()[0]
    shard = Path(sick.path("shards", f"{first:06d}-{late.unit_ids[first][:8]}.tar"))
    shard.write_bytes(b"published, and not committed yet")
    return early, shard


def _killed_at_once(*_: Any) -> Any:
    raise _KilledError
    yield


def test_a_build_that_began_before_sweeps_nothing_of_a_new_generation(sick: Dataset) -> None:
    early, shard = planned_with_a_shard(sick)
    assert sweep_orphans(early) == 0
    assert shard.exists()


def test_a_compaction_that_began_before_deletes_nothing_of_a_new_generation(
    sick: Dataset,
) -> None:
    early, shard = planned_with_a_shard(sick)
    tombstones.bury(sick.uri, [sick.view().keys()[0]])
    with pytest.raises(DatasetError, match="compact it again"):
        compact(early)
    assert shard.exists()
    retry(sick)
    compact(reopened(sick))
    assert not shard.exists()
    assert verify(reopened(sick)) == []
    assert reopened(sick).status().rejects == {"removed": 1}


def test_no_generation_is_planned_while_a_compaction_stands(sick: Dataset) -> None:
    with busy.marked(sick.uri, busy.COMPACT), pytest.raises(DatasetError, match="compaction"):
        retry(sick)
    assert not Path(sick.path("plans")).exists()


def test_on_object_storage(s3: str, pictures: Path, recipe: Recipe) -> None:
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    fs = fsspec.filesystem("s3")
    fs.put(f"{pictures}/", f"{s3}/pictures/", recursive=True)
    gone = f"{s3}/pictures/odd/05.jpg"

    def without(*arguments: Any) -> Any:
        fs.rm(gone)
        return run_local(*arguments)

    out, inputs = f"{s3}/d", Inputs(images=[f"{s3}/pictures"])
    build(recipe, out, inputs, PATIENT, executor=without, observer=Silent())
    sick = Dataset.open(out)
    assert (len(sick.view()), sick.rejects()["uri"].to_pylist()) == (9, [gone])
    fs.put(str(pictures / "odd" / "05.jpg"), gone)
    assert retry(sick).left == {}
    assert len(reopened(sick).view()) == 10
    assert verify(reopened(sick)) == []
    (story,) = explain(reopened(sick), "05.jpg")
    assert story.source["uri"] == gone
    assert [unit.status for unit in story.units] == ["failed:FileNotFoundError", "ok"]
