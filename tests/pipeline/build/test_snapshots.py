"""What a snapshot shows stays while a dataset follows its source; what nothing shows goes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from catalog.dataset import busy, tombstones
from catalog.dataset import compact as compaction
from catalog.dataset.commits import read_commits
from catalog.dataset.compact import compact
from catalog.dataset.dataset import Dataset
from catalog.dataset.snapshots import drop_snapshot, read_snapshot, take_snapshot
from catalog.dataset.verify import verify
from catalog.errors import DatasetError
from catalog.publish.card import write_card
from catalog.sample import DROPPED
from pipeline.build.append import Appended, append_changes
from pipeline.build.build import BuildResult
from pipeline.build.local import run_local
from pipeline.ledger.diff import diff
from pipeline.ledger.remake import rebuild_sampled
from pipeline.plan.growth import Growth
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe
from pipeline.scan.source import Inputs
from tests.pipeline.silent import Silent

Follow = Callable[[], Appended]


@pytest.fixture
def source(pictures: Path, tmp_path: Path) -> Path:
    shutil.copytree(pictures, tmp_path / "in")
    return tmp_path / "in"


@pytest.fixture
def uri(source: Path, tmp_path: Path, make: Callable[..., BuildResult]) -> str:
    """A finished dataset of ten samples, of which there is the snapshot ``first``."""
    make(source, tmp_path / "d")
    take_snapshot(Dataset.open(str(tmp_path / "d")), "first")
    return str(tmp_path / "d")


@pytest.fixture
def follow(uri: str, recipe: Recipe) -> Follow:
    """Bring the dataset to what its source is now."""

    def run() -> Appended:
        return append_changes(
            uri, recipe, Inputs(), Execution(threads=2), executor=run_local, observer=Silent()
        )

    return run


def change(source: Path) -> None:
    """Let five images go, one come and one have another caption."""
    shutil.move(source / "odd", source.parent / "aside")
    Image.new("RGB", (300, 300), (200, 30, 90)).save(source / "new.png")
    (source / "even" / "02.txt").write_text("another caption\n")


def seen(uri: str, snapshot: str | None = None) -> list[tuple[str, str]]:
    """Read all samples of a view; return their keys and captions."""
    view = Dataset.open(uri).view(snapshot=snapshot)
    read = [view.read(at) for at in range(len(view))]
    return [(one.key, one.caption) for one in read]


def shard_samples(uri: str) -> int:
    return sum(one.counts.get("ok", 0) for one in read_commits(uri))


@pytest.mark.usefixtures("on_disk")
def test_growth_and_compaction_leave_a_snapshot_as_it_was(
    source: Path, uri: str, follow: Follow
) -> None:
    before, fingerprint = seen(uri), Dataset.open(uri).view().fingerprint
    change(source)
    assert follow().growth == Growth(added=1, changed=1, gone=5, unchanged=4)
    now = seen(uri)
    assert seen(uri, "first") == before
    assert len(now) == 6
    assert verify(Dataset.open(uri)) == []
    assert compact(Dataset.open(uri)).units == 0  # the snapshot shows all that went
    taken = take_snapshot(Dataset.open(uri), "second")
    assert (taken.generation, taken.samples, taken.images) == (1, 6, 6)
    tombstones.bury(uri, [before[0][0]])
    assert compact(Dataset.open(uri)).units > 0
    assert verify(Dataset.open(uri)) == []
    assert seen(uri, "first") == before[1:]
    assert seen(uri, "second") == seen(uri) == [one for one in now if one != before[0]]
    opened = Dataset.open(uri)
    whole = opened.view("10", "first")
    assert whole.keys() == [key for key, _ in before[1:]]
    assert read_snapshot(uri, "first").view == fingerprint


def test_what_nothing_shows_is_dropped_and_annotated_anew(
    source: Path, uri: str, follow: Follow, make: Callable[..., BuildResult], tmp_path: Path
) -> None:
    change(source)
    follow()
    now = seen(uri)
    assert shard_samples(uri) == 12
    drop_snapshot(uri, "first")
    done = compact(Dataset.open(uri))
    assert done.units > 0
    assert seen(uri) == now
    assert shard_samples(uri) == 6
    opened = Dataset.open(uri)
    assert verify(opened) == []
    assert (opened.status().samples, opened.status().rejects) == (6, {})
    assert compact(opened) == compaction.Compacted(units=0, deleted=0)
    assert rebuild_sampled(opened, 9, Execution(threads=2)) == []
    assert follow().growth is None
    shutil.move(source.parent / "aside", source / "odd")
    assert follow().growth == Growth(added=5, unchanged=6)
    make(source, tmp_path / "at-once")
    assert seen(uri) == seen(str(tmp_path / "at-once"))
    assert verify(Dataset.open(uri)) == []
    assert DROPPED not in Dataset.open(uri).status().rejects


def test_a_compaction_that_was_killed_goes_on(
    source: Path, uri: str, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = seen(uri)
    (source / "even" / "02.txt").write_text("another caption\n")
    follow()
    take_snapshot(Dataset.open(uri), "second")
    shutil.move(source / "odd", source.parent / "aside")
    follow()
    now, second = seen(uri), seen(uri, "second")
    drop_snapshot(uri, "first")
    tombstones.bury(uri, [before[-1][0]])
    for step in ("_fold_subsets", "_fold_snapshots", "_verify", "_delete_unnamed"):
        with monkeypatch.context() as patch:
            patch.setattr(compaction, step, _dies)
            with pytest.raises(KeyboardInterrupt):
                compact(Dataset.open(uri))
        assert seen(uri, "second") == [one for one in second if one != before[-1]]
        assert seen(uri) == [one for one in now if one != before[-1]]
    compact(Dataset.open(uri))
    assert verify(Dataset.open(uri)) == []
    assert seen(uri, "second") == [one for one in second if one != before[-1]]


def _dies(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_comes_back_while_a_compaction_takes_it_is_annotated_anew(
    source: Path, uri: str, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = seen(uri)
    shutil.move(source / "odd", source.parent / "aside")
    follow()
    drop_snapshot(uri, "first")
    rewrite = compaction._rewrite

    def meanwhile(*arguments: Any) -> bool:
        if (source.parent / "aside").exists():
            shutil.move(source.parent / "aside", source / "odd")
            with monkeypatch.context() as patch:
                patch.setattr(busy, "stands", lambda *_: False)  # it looked just before
                assert follow().growth == Growth(returned=5, unchanged=5)
        return rewrite(*arguments)

    monkeypatch.setattr(compaction, "_rewrite", meanwhile)
    compact(Dataset.open(uri))
    assert follow().growth == Growth(added=5, unchanged=5)
    assert seen(uri) == before
    assert verify(Dataset.open(uri)) == []
    assert follow().growth is None


def test_the_card_names_no_tar_with_samples_of_another_time(
    source: Path, uri: str, follow: Follow
) -> None:
    change(source)
    follow()
    message = r"hold 3 samples that the dataset has no more: compact .* first; drop the snapshots"
    with pytest.raises(DatasetError, match=message):
        write_card(Dataset.open(uri))
    drop_snapshot(uri, "first")
    compact(Dataset.open(uri))
    assert write_card(Dataset.open(uri)).configs[0].samples == 6


@pytest.mark.usefixtures("on_disk")
def test_a_diff_says_what_came_and_why_something_went(
    source: Path, uri: str, follow: Follow
) -> None:
    first = dict(seen(uri))
    change(source)
    taken_down = next(key for key, caption in first.items() if caption == "picture 6")
    follow()
    take_snapshot(Dataset.open(uri), "second")
    second = dict(seen(uri))
    tombstones.bury(uri, [taken_down])
    (source / "new.png").write_bytes(b"")
    found = diff(Dataset.open(uri), "first")
    assert found.added == [key for key in second if key not in first]
    assert found.changed == [key for key in first if second.get(key, first[key]) != first[key]]
    assert found.reasons == {"gone from the source": 5, "removed": 1}
    assert found.removed[taken_down] == "removed"
    assert (found.before, found.after) == (10, 5)
    between = diff(Dataset.open(uri), "first", "second")
    assert between.reasons == {"gone from the source": 5}  # both were before the takedown
    back = diff(Dataset.open(uri), "second", "first")
    assert (len(back.added), list(back.removed)) == (5, between.added)


def test_a_diff_names_the_rule(
    source: Path, tmp_path: Path, recipe: Recipe, make: Callable[..., BuildResult]
) -> None:
    rules = recipe.rules.model_copy(update={"near_duplicates": 4})
    best = recipe.model_copy(update={"rules": rules})
    make(source, tmp_path / "d", recipe=best)
    uri = str(tmp_path / "d")
    take_snapshot(Dataset.open(uri), "first")
    with Image.open(source / "odd" / "09.png") as picture:
        picture.resize((picture.width * 3, picture.height * 3)).save(source / "odd" / "larger.png")
    append_changes(uri, best, Inputs(), Execution(threads=2), executor=run_local, observer=Silent())
    found = diff(Dataset.open(uri), "first")
    assert found.reasons == {"rejected:near_duplicate": 1}
    assert len(found.added) == 1
