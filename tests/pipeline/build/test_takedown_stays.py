"""What was taken down of a dataset comes back by no way to another one that starts from it."""

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalog import tables
from catalog.dataset import tombstones
from catalog.dataset.commits import read_commits
from catalog.dataset.compact import compact
from catalog.dataset.dataset import Dataset
from catalog.dataset.verify import verify
from pipeline.build.build import build
from pipeline.build.local import run_local
from pipeline.ledger.requery import requery
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe
from pipeline.scan.source import Inputs
from tests.pipeline.silent import Silent

GONE = 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("finished") / "d"


@pytest.fixture(params=["removed", "compacted"])
def old(
    request: pytest.FixtureRequest,
    pictures: Path,
    finished: Path,
    tmp_path: Path,
    make: Callable[..., Any],
) -> Dataset:
    """A dataset of ten of which two were taken down, before and after their bytes went."""
    if not finished.exists():
        make(pictures, finished)
    shutil.copytree(finished, tmp_path / "old")
    dataset = Dataset.open(str(tmp_path / "old"))
    tombstones.bury(dataset.uri, dataset.view().keys()[:GONE])
    if request.param == "compacted":
        compact(dataset)
    return dataset


def made_of(old: Dataset, out: Path, recipe: Recipe, *, reuse: bool = False, **inputs: Any) -> Any:
    """Build a dataset that starts from `old` in some way; check that it holds what is left."""
    execution = Execution(threads=2, reuse=old.uri if reuse else None)
    given = Inputs(**inputs)
    result = build(recipe, str(out), given, execution, executor=run_local, observer=Silent())
    dataset = Dataset.open(str(out))
    assert sorted(dataset.view().keys()) == sorted(old.view().keys())
    assert verify(dataset) == []
    return result.status


def test_the_table_of_its_scan(old: Dataset, tmp_path: Path, recipe: Recipe) -> None:
    status = made_of(old, tmp_path / "new", recipe, source=old.path("source.parquet"))
    assert (status.images, status.rejects) == (10, {"removed": GONE})
    again = tmp_path / "new" / "source.parquet"
    made_of(old, tmp_path / "newer", recipe, source=str(again))
    shutil.copy(again, tmp_path / "elsewhere.parquet")
    made_of(old, tmp_path / "newest", recipe, source=str(tmp_path / "elsewhere.parquet"))


def test_its_maps(old: Dataset, tmp_path: Path, recipe: Recipe, pictures: Path) -> None:
    made_of(old, tmp_path / "new", recipe, reuse=True, images=[str(pictures)])
    made_of(old, tmp_path / "newer", recipe, source=str(tmp_path / "new" / "source.parquet"))


def test_its_samples(old: Dataset, tmp_path: Path, recipe: Recipe) -> None:
    made_of(old, tmp_path / "new", recipe, dataset=old.uri)


def test_other_thresholds(old: Dataset, tmp_path: Path, recipe: Recipe) -> None:
    looser = recipe.model_copy(update={"rules": recipe.rules.model_copy(update={"min_side": 32})})
    before = old.status()
    answer = requery(old, looser)
    assert answer.before == answer.after == {"ok": 10 - GONE, "removed": GONE}
    assert (answer.added, answer.removed) == (0, 0)
    source = old.path("source.parquet")
    made_of(old, tmp_path / "new", looser, reuse=True, source=source)
    assert old.status() == before


def test_what_the_scan_rejected_and_was_taken_down(
    pictures: Path, tmp_path: Path, make: Callable[..., Any], recipe: Recipe
) -> None:
    """A limit that lets more images through does not let this one through."""
    strict = recipe.model_copy(update={"rules": recipe.rules.model_copy(update={"min_side": 84})})
    status = make(pictures, tmp_path / "old", recipe=strict).status
    old = Dataset.open(str(tmp_path / "old"))
    rejected = old.rejects()["sha256"].to_pylist()
    tombstones.bury(old.uri, [rejected[0][:32]])
    compact(old)
    assert verify(old) == []
    table = tables.read_table(old.path("rejects.parquet"))
    (row,) = (row for row in table.to_pylist() if row["sha256"] == rejected[0])
    assert row["status"] == "removed"
    assert old.status().images == status.images
    assert old.status().rejects == {
        "rejected:min_side": status.rejects["rejected:min_side"] - 1,
        "removed": 1,
    }
    source = old.path("source.parquet")
    build(
        recipe, str(tmp_path / "new"), Inputs(source=source), Execution(),
        executor=run_local, observer=Silent(),
    )  # fmt: skip
    assert rejected[0][:32] not in set(Dataset.open(str(tmp_path / "new")).view().keys())


def test_a_dataset_that_is_begun_learns_of_a_later_removal(
    pictures: Path, finished: Path, tmp_path: Path, make: Callable[..., Any], recipe: Recipe
) -> None:
    if not finished.exists():
        make(pictures, finished)
    shutil.copytree(finished, tmp_path / "old")
    old = Dataset.open(str(tmp_path / "old"))
    make(pictures, tmp_path / "new")
    (first,) = (one for one in read_commits(str(tmp_path / "new")) if one.index == 0)
    commit = tmp_path / "new" / "commits" / f"{first.unit_id}.json"
    for path in (tmp_path / "new" / "shards").glob("000000-*"):
        path.unlink()
    commit.unlink()
    tombstones.bury(old.uri, old.view().keys()[:GONE])
    made_of(old, tmp_path / "new", recipe, reuse=True)
    new = Dataset.open(str(tmp_path / "new"))
    (made,) = (one for one in read_commits(new.uri) if one.unit_id == commit.stem)
    rows = tables.read_table(new.path("shards", made.rows.name))
    gone = tombstones.is_removed(rows["sha256"], tombstones.removed_keys(old.uri))
    assert rows.filter(gone)["status"].to_pylist() == ["removed"] * GONE
    with tarfile.open(new.path("shards", made.shard.name)) as tar:
        assert len({name.partition(".")[0] for name in tar.getnames()}) == 3 - GONE
    compact(new)
    assert len(new.view()) == 10 - GONE
    assert verify(new) == []


def test_a_refused_build_takes_nothing_over(old: Dataset, tmp_path: Path, recipe: Recipe) -> None:
    other = tmp_path / "other"
    shutil.copytree(old.uri, other)
    shutil.rmtree(other / "tombstones")
    changed = recipe.model_copy(update={"seed": 99})
    given = Inputs(source=old.path("source.parquet"))
    with pytest.raises(ValueError, match="Choose another --out"):
        build(changed, str(other), given, Execution(), executor=run_local, observer=Silent())
    assert not (other / "tombstones").exists()
