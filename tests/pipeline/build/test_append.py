"""A dataset follows its source, and is what one that is built at once from the final source is."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from catalog.dataset import tombstones
from catalog.dataset.compact import compact
from catalog.dataset.dataset import Dataset
from catalog.dataset.verify import verify
from catalog.errors import DatasetError
from detectors.canny import CannySpec
from pipeline.attempts.outcome import UnitFailure, UnitReport
from pipeline.build.append import Appended, append_changes
from pipeline.build.build import BuildResult
from pipeline.build.local import run_local
from pipeline.commands.cli import app
from pipeline.errors import BuildError
from pipeline.ledger.explain import explain
from pipeline.ledger.requery import requery
from pipeline.plan.growth import Growth
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe
from pipeline.scan.source import Inputs
from tests.pipeline.silent import Silent

COLUMNS = ["rank", "key", "block_sha256", "caption", "parameters", "length", "popularity"]
VERDICTS = ["uri", "sha256", "status", "value", "threshold", "against"]


@pytest.fixture
def source(pictures: Path, tmp_path: Path) -> Path:
    shutil.copytree(pictures, tmp_path / "in")
    return tmp_path / "in"


@pytest.fixture
def grown(source: Path, tmp_path: Path, make: Callable[..., BuildResult]) -> str:
    """A finished dataset of the source."""
    make(source, tmp_path / "d")
    return str(tmp_path / "d")


@pytest.fixture
def append(grown: str, recipe: Recipe) -> Callable[..., Appended]:
    """Bring the dataset to what its source is now."""

    def run(*images: Path, executor: Any = run_local) -> Appended:
        inputs = Inputs(images=[str(one) for one in images])
        return append_changes(
            grown, recipe, inputs, Execution(threads=2), executor=executor, observer=Silent()
        )

    return run


def draw(path: Path, side: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((side, side + 8), Image.Resampling.NEAREST).save(path)


def same(one: str, other: str) -> None:
    """Check that two datasets show the same samples and rejects, and verify."""
    left, right = Dataset.open(one), Dataset.open(other)
    assert verify(left) == []
    assert left.view().table.select(COLUMNS).to_pylist() == (
        right.view().table.select(COLUMNS).to_pylist()
    )
    assert left.rejects().select(VERDICTS).sort_by("uri").to_pylist() == (
        right.rejects().select(VERDICTS).sort_by("uri").to_pylist()
    )
    ours, theirs = left.status(), right.status()
    assert (ours.images, ours.samples, ours.rejects) == (
        (theirs.images, theirs.samples, theirs.rejects)
    )


def test_images_come_change_and_go(
    source: Path,
    grown: str,
    append: Callable[..., Appended],
    make: Callable[..., BuildResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    detected = _count_detections(monkeypatch)
    before = _committed(grown)
    draw(source / "new" / "a.png", 200, 1)
    draw(source / "new" / "b.png", 70, 2)
    draw(source / "odd" / "01.jpg", 90, 3)  # edited: another image in its place
    (source / "odd" / "03.txt").write_text("another caption\n")
    (source / "even" / "06.png").unlink()
    (source / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    shutil.copy(source / "odd" / "05.jpg", source / "twice.jpg")
    found = append()
    assert found.growth == Growth(added=3, changed=1, gone=2, unchanged=7)
    assert sum(detected.values()) == 3  # of the one with another caption the map was kept
    assert before.items() <= _committed(grown).items()
    make(source, tmp_path / "at-once")
    same(grown, str(tmp_path / "at-once"))


def test_a_source_that_is_as_it_was_plans_nothing(
    grown: str, append: Callable[..., Appended]
) -> None:
    before = _committed(grown)
    found = append()
    assert (found.growth, found.result.changed, found.result.units_run) == (None, False, 0)
    assert _committed(grown) == before


@pytest.mark.usefixtures("on_disk")
def test_what_went_comes_back_as_it_was(
    source: Path,
    grown: str,
    append: Callable[..., Appended],
    make: Callable[..., BuildResult],
    tmp_path: Path,
) -> None:
    shutil.move(source / "odd", tmp_path / "aside")
    assert append().growth == Growth(gone=5, unchanged=5)
    make(source, tmp_path / "half")
    same(grown, str(tmp_path / "half"))
    shutil.move(tmp_path / "aside", source / "odd")
    found = append()
    assert found.growth == Growth(returned=5, unchanged=5)
    assert found.result.units_run == 0
    make(source, tmp_path / "whole")
    same(grown, str(tmp_path / "whole"))


def test_another_folder_is_added(
    source: Path,
    grown: str,
    append: Callable[..., Appended],
    make: Callable[..., BuildResult],
    tmp_path: Path,
) -> None:
    draw(tmp_path / "more" / "a.png", 150, 1)
    assert append(tmp_path / "more").growth == Growth(added=1, unchanged=10)
    make([source, tmp_path / "more"], tmp_path / "at-once")
    same(grown, str(tmp_path / "at-once"))
    draw(tmp_path / "more" / "b.png", 160, 2)
    assert append().growth == Growth(added=1, unchanged=11)  # it is of both from then on


def test_a_takedown_stays(source: Path, grown: str, append: Callable[..., Appended]) -> None:
    keys = Dataset.open(grown).view().keys()
    tombstones.bury(grown, keys[:2])
    draw(source / "a.png", 150, 1)
    assert append().growth == Growth(added=1, gone=2, unchanged=8)
    view = Dataset.open(grown).view()
    assert len(view) == 9
    assert not set(keys[:2]) & set(view.keys())
    status = Dataset.open(grown).status()
    assert (status.images, status.samples, status.rejects) == (11, 9, {"removed": 2})
    tombstones.bury(grown, [view.keys()[0]])
    compact(Dataset.open(grown))
    assert verify(Dataset.open(grown)) == []
    assert Dataset.open(grown).status().rejects == {"removed": 3}
    assert append().growth == Growth(gone=1, unchanged=8)
    assert len(Dataset.open(grown).view()) == 8


def test_a_call_that_was_stopped_goes_on(
    source: Path,
    grown: str,
    append: Callable[..., Appended],
    make: Callable[..., BuildResult],
    tmp_path: Path,
) -> None:
    for number in range(7):
        draw(source / "new" / f"{number}.png", 100 + number, number)

    def stops(
        dataset: str, recipe: Recipe, execution: Execution, pending: Sequence[int], run: str
    ) -> Generator[UnitReport | UnitFailure]:
        yield from run_local(dataset, recipe, execution, pending[:1], run)
        raise BuildError("stopped")

    with pytest.raises(BuildError, match="stopped"):
        append(executor=stops)
    assert len(Dataset.open(grown).view()) == 10  # readers see what was there
    status = Dataset.open(grown).status()
    assert (status.images, status.samples) == (17, 13)
    draw(source / "new" / "late.png", 120, 99)
    found = append()
    assert found.growth == Growth(added=1, unchanged=17)
    assert found.result.units_run == 3  # the two that were left, and one for what came late
    make(source, tmp_path / "at-once")
    same(grown, str(tmp_path / "at-once"))


def test_rules_of_the_whole_source_hold(
    source: Path, tmp_path: Path, recipe: Recipe, make: Callable[..., BuildResult]
) -> None:
    """Of the best eight, new ones push old ones out; near duplicates are found across nights."""
    rules = recipe.rules.model_copy(update={"near_duplicates": 4})
    best = recipe.model_copy(update={"max_images": 8, "rules": rules})
    make(source, tmp_path / "d", recipe=best)
    draw(source / "new" / "large.png", 400, 1)
    with Image.open(source / "odd" / "09.png") as picture:
        picture.resize((picture.width * 3, picture.height * 3)).save(source / "odd" / "larger.png")
    found = append_changes(
        str(tmp_path / "d"),
        best,
        Inputs(),
        Execution(threads=2),
        executor=run_local,
        observer=Silent(),
    )
    assert found.growth is not None
    assert (found.growth.added, found.growth.gone) == (2, 2)
    make(source, tmp_path / "at-once", recipe=best)
    same(str(tmp_path / "d"), str(tmp_path / "at-once"))


def test_subsets_are_cut_again(source: Path, grown: str, append: Callable[..., Appended]) -> None:
    Dataset.open(grown).write_subset(3, policy="top", seed=0)
    draw(source / "a.png", 500, 1)
    append()
    opened = Dataset.open(grown)
    assert opened.view("3").keys() == opened.view().keys()[:3]


@pytest.mark.usefixtures("on_disk")
def test_the_ledger_knows_all_generations(
    source: Path, grown: str, append: Callable[..., Appended], recipe: Recipe
) -> None:
    draw(source / "a.png", 150, 1)
    (source / "odd" / "03.txt").write_text("another\n")
    append()
    opened = Dataset.open(grown)
    (new,), (changed,) = explain(opened, "a.png"), explain(opened, "03.png")
    assert [unit.generation for unit in new.units] == [1]
    assert [unit.generation for unit in changed.units] == [0, 1]
    assert changed.sample is not None
    assert changed.sample["caption"] == "another"
    answer = requery(opened, recipe)
    assert answer.before == answer.after == {"ok": 11}


def test_the_last_image_cannot_go(
    source: Path, grown: str, append: Callable[..., Appended]
) -> None:
    for path in source.rglob("*.*g"):
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match="no image of the source can be used now"):
        append()
    assert len(Dataset.open(grown).view()) == 10


def test_the_command_says_what_came(source: Path, tmp_path: Path) -> None:
    sets = ["image.resolution=64", "rules.min_sharpness=0", "rules.min_chroma=0"]
    command = ["build", "canny", "--local", "--out", str(tmp_path / "d"), "--append"]
    command += [word for one in [*sets, "captions.captioner=sidecar"] for word in ("--set", one)]
    runner = CliRunner()
    first = runner.invoke(app, [*command, "--images", str(source)])
    assert first.exit_code == 0, first.output
    draw(source / "a.png", 150, 1)
    second = runner.invoke(app, command)
    assert second.exit_code == 0, second.output
    assert "1 added, 0 changed, 0 returned, 0 gone, 10 unchanged" in " ".join(second.output.split())
    assert "nothing to do" in runner.invoke(app, command).output


def _committed(dataset: str) -> dict[str, bytes]:
    """Return the bytes of all shards, rows, plans and commits."""
    wanted = ("shards", "commits", "plans", "sources")
    paths = (Path(dataset, folder) for folder in wanted)
    return {os.fspath(path): path.read_bytes() for folder in paths for path in folder.glob("*.*")}


def _count_detections(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the calls of Canny, by nothing but their number."""
    seen: Counter[str] = Counter()
    detect = CannySpec.annotate

    def counted(self: CannySpec, *arguments: Any, **options: Any) -> Any:
        seen["draw"] += 1
        return detect(self, *arguments, **options)

    monkeypatch.setattr(CannySpec, "annotate", counted)
    return seen
