"""Another threshold: told from the ledger alone, and built without a network running again."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image

from catalog import tables
from catalog.dataset import tombstones
from catalog.dataset.commits import is_same_environment, read_commits
from catalog.dataset.compact import compact
from catalog.dataset.dataset import SOURCE, Dataset
from catalog.dataset.verify import differences, verify
from catalog.errors import DatasetError
from detectors.base import Batch
from detectors.canny import CannySpec
from detectors.keypoints import OPENPOSE18, Person
from detectors.nsfw import NsfwNetwork
from detectors.openpose import LightNetwork
from pipeline.build.append import append_changes
from pipeline.build.build import BuildResult, build
from pipeline.build.local import run_local
from pipeline.errors import RecipeError, UsageError
from pipeline.ledger.explain import explain
from pipeline.ledger.remake import rebuild_sampled
from pipeline.ledger.requery import UNKNOWN, changed_recipe, requery
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe, load_recipe
from pipeline.scan.source import Inputs
from pipeline.unit.earlier_maps import same_maps

IMAGES = 18
RECIPE = """
name: poses
samples_per_unit: 5
image: {resolution: 64}
rules: {min_chroma: 0, min_contrast: 0, min_sharpness: 0, max_grey_tail: 1}
detectors:
  - {detector: canny}
  - {detector: openpose_light, fraction: 0.3}
"""


class FakePoses:
    """A network that finds as many joints in a picture as its first pixel says; and counts."""

    seen = 0

    def __call__(self, images: Batch) -> list[list[Person]]:
        FakePoses.seen += len(images)
        return [self._people(image) for image in images]

    def _people(self, image: np.ndarray) -> list[Person]:
        keypoints = np.full((len(OPENPOSE18), 3), np.nan)
        found = int(image[0, 0, 0])
        keypoints[:found] = np.random.default_rng(found).uniform(1, 60, (found, 3))
        return [Person(keypoints=keypoints, score=0.5)] if found else []


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LightNetwork, "load", lambda *arguments: FakePoses())
    FakePoses.seen = 0


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of 0 to 17 joints, each with as much of an edge as it has joints."""
    folder = tmp_path_factory.mktemp("people")
    for joints in range(IMAGES):
        pixels = np.full((64, 64, 3), joints, np.uint8)
        pixels[:, 32 : 32 + 2 * joints : 4] = 200
        pixels[0, 0] = joints
        Image.fromarray(pixels).save(folder / f"{joints:02d}.png")
        (folder / f"{joints:02d}.json").write_text(f'{{"joints": {joints}}}')
    return folder


@pytest.fixture
def recipe_of(tmp_path: Path) -> Callable[..., Recipe]:
    def load(*overrides: str) -> Recipe:
        path = tmp_path / "poses.yaml"
        path.write_text(RECIPE)
        return load_recipe(str(path), overrides)

    return load


@pytest.fixture
def run(silent: type[Any], people: Path) -> Callable[..., BuildResult]:
    def build_one(
        recipe: Recipe, out: Path, reuse: Path | None = None, source: Path | None = None
    ) -> BuildResult:
        execution = Execution(threads=2, reuse=str(reuse) if reuse else None)
        given = Inputs(source=str(source)) if source else Inputs(images=[str(people)])
        return build(recipe, str(out), given, execution, executor=run_local, observer=silent())

    return build_one


CHANGES = [
    ["detectors.1.fraction=0.6"],
    ["detectors.1.fraction=0.1"],
    ["detectors.1.people=every", "detectors.1.fraction=0"],
    ["rules.min_coverage=0.03"],
    ["rules.max_coverage=0.2"],
    ["rules.min_coverage=0.01", "detectors.1.fraction=0.05"],
    ["rules.min_contrast=30"],
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_a_changed_threshold_runs_no_network_and_gives_a_fresh_builds_bytes(
    changes: list[str],
    tmp_path: Path,
    run: Callable[..., BuildResult],
    recipe_of: Callable[..., Recipe],
) -> None:
    first, reused, fresh = (tmp_path / name for name in ("first", "reused", "fresh"))
    run(recipe_of("rules.max_coverage=0.9"), first)
    assert FakePoses.seen == IMAGES
    other = recipe_of("rules.max_coverage=0.9", *changes)
    run(other, reused, reuse=first, source=first / SOURCE)
    assert FakePoses.seen == IMAGES  # the counter proves it: none was looked at again
    assert set(_network_images(reused)) == {0}
    run(other, fresh)
    assert FakePoses.seen > IMAGES
    assert differences(str(fresh), str(reused)) == []
    assert verify(Dataset.open(str(reused))) == []
    ours, theirs = (Dataset.open(str(path)).status() for path in (first, reused))
    assert (ours.samples, ours.rejects) != (theirs.samples, theirs.rejects)


def test_another_range_of_canny_is_drawn_anew_and_runs_no_network(
    tmp_path: Path, run: Callable[..., BuildResult], recipe_of: Callable[..., Recipe]
) -> None:
    first, reused, fresh = (tmp_path / name for name in ("first", "reused", "fresh"))
    run(recipe_of("detectors.1.fraction=0.9"), first)  # most maps are of rejected images
    other = recipe_of("detectors.0.low=[5, 20]")
    run(other, reused, reuse=first)
    assert FakePoses.seen == IMAGES
    run(other, fresh)
    assert differences(str(fresh), str(reused)) == []
    run(recipe_of(), tmp_path / "plain")
    assert differences(str(tmp_path / "plain"), str(reused)) != []


def test_the_condition_that_refused_an_image_is_told(
    tmp_path: Path, run: Callable[..., BuildResult], recipe_of: Callable[..., Recipe]
) -> None:
    run(recipe_of("rules.min_coverage=0.03"), tmp_path / "d")
    dataset = Dataset.open(str(tmp_path / "d"))
    told = {
        (story.status, story.units[0].condition)
        for joints in range(IMAGES)
        for story in explain(dataset, f"{joints:02d}.png")
    }
    assert told == {
        ("ok", None),
        ("rejected:coverage", "canny"),
        ("rejected:keypoints", "openpose_light"),
    }


def test_a_detector_that_is_new_runs_alone(
    tmp_path: Path, run: Callable[..., BuildResult], recipe_of: Callable[..., Recipe]
) -> None:
    first, reused, fresh = (tmp_path / name for name in ("first", "reused", "fresh"))
    plain = recipe_of()
    run(plain.model_copy(update={"detectors": plain.detectors[1:]}), first)
    run(plain, reused, reuse=first)
    assert FakePoses.seen == IMAGES
    run(plain, fresh)
    assert differences(str(fresh), str(reused)) == []


def _network_images(dataset: Path) -> list[int]:
    (log,) = (dataset / "logs").glob("*.jsonl")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    return [event["network_images"] for event in events if event["event"] == "unit"]


@pytest.mark.parametrize("changes", [["detectors.1.fraction=0.3"], *CHANGES], ids=str)
@pytest.mark.usefixtures("on_disk")
def test_the_ledger_foretells_what_a_build_keeps(
    changes: list[str],
    tmp_path: Path,
    run: Callable[..., BuildResult],
    recipe_of: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(recipe_of(), tmp_path / "first")
    wanted = run(recipe_of(*changes), tmp_path / "other").status
    monkeypatch.setattr("catalog.source.parts.read_image", None)  # no image is read
    dataset = Dataset.open(str(tmp_path / "first"))
    answer = requery(dataset, changed_recipe(dataset, changes))
    assert Counter(answer.after) == Counter({"ok": wanted.samples, **wanted.rejects})
    before = dataset.status()
    assert answer.before == {"ok": before.samples, **before.rejects}
    keys = [set(Dataset.open(str(tmp_path / name)).view().table["key"].to_pylist())
            for name in ("first", "other")]  # fmt: skip
    assert (answer.added, answer.removed) == (len(keys[1] - keys[0]), len(keys[0] - keys[1]))


def test_what_was_never_annotated_is_told_apart_and_computed(
    tmp_path: Path, run: Callable[..., BuildResult], recipe_of: Callable[..., Recipe]
) -> None:
    """Contrast had kept images from the network: lower, and it has to look at those alone."""
    first, reused, fresh = (tmp_path / name for name in ("first", "reused", "fresh"))
    run(recipe_of("rules.min_contrast=50"), first)
    looked_at = FakePoses.seen
    assert 0 < looked_at < IMAGES
    dataset = Dataset.open(str(first))
    answer = requery(dataset, changed_recipe(dataset, ["rules.min_contrast=0"]))
    assert answer.after[UNKNOWN] == IMAGES - looked_at
    run(recipe_of("rules.min_contrast=0"), reused, reuse=first)
    assert FakePoses.seen == IMAGES
    run(recipe_of("rules.min_contrast=0"), fresh)
    assert differences(str(fresh), str(reused)) == []


def test_rules_of_the_scan_are_judged_anew(
    tmp_path: Path, run: Callable[..., BuildResult], recipe_of: Callable[..., Recipe]
) -> None:
    run(recipe_of("max_images=9"), tmp_path / "first")
    dataset = Dataset.open(str(tmp_path / "first"))
    fewer = requery(dataset, changed_recipe(dataset, ["max_images=3"]))
    assert fewer.after["rejected:max_images"] == IMAGES - 3
    more = requery(dataset, changed_recipe(dataset, ["max_images=12"]))
    assert (more.after[UNKNOWN], more.after["rejected:max_images"]) == (3, IMAGES - 12)
    none = requery(dataset, changed_recipe(dataset, ["rules.min_side=65"]))
    assert (none.after, none.added) == ({"rejected:min_side": IMAGES}, 0)
    assert none.removed == dataset.status().samples
    filtered = requery(dataset, changed_recipe(dataset, ["rules.filter=joints > 5 and width > 9"]))
    assert filtered.after["rejected:filter"] == 6
    with pytest.raises(UsageError, match="scan --perceptual"):
        requery(dataset, changed_recipe(dataset, ["rules.near_duplicates=6"]))


def test_a_scan_that_was_judged_before_gives_the_same_dataset(
    tmp_path: Path, run: Callable[..., BuildResult], recipe_of: Callable[..., Recipe]
) -> None:
    run(recipe_of("max_images=4", "rules.max_aspect=1"), tmp_path / "first")
    run(recipe_of(), tmp_path / "again", source=tmp_path / "first" / SOURCE)
    run(recipe_of(), tmp_path / "fresh")
    assert differences(str(tmp_path / "fresh"), str(tmp_path / "again")) == []


def test_rejected_maps_lie_beside_the_shard_and_are_verified(
    tmp_path: Path, run: Callable[..., BuildResult], recipe_of: Callable[..., Recipe]
) -> None:
    run(recipe_of(), tmp_path / "d")
    dataset = Dataset.open(str(tmp_path / "d"))
    held = [commit.held for commit in read_commits(dataset.uri) if commit.held]
    assert held
    assert not {file.name for file in held} & {path.name for path in tmp_path.rglob("*.tar")}
    assert sum(file.bytes for file in held) < 6 * 64 * 64 * 3 * len(held)
    assert rebuild_sampled(dataset, 4, Execution()) == []
    path = tmp_path / "d" / "shards" / held[0].name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert [held[0].name in fault for fault in verify(dataset)] == [True]


def test_a_takedown_reaches_the_maps_of_rejected_images(
    tmp_path: Path, run: Callable[..., BuildResult], recipe_of: Callable[..., Recipe]
) -> None:
    run(recipe_of(), tmp_path / "d")
    dataset = Dataset.open(str(tmp_path / "d"))
    rows = pa.concat_tables(
        [tables.read_table(dataset.path("shards", c.rows.name)) for c in read_commits(dataset.uri)]
    )
    held = rows.filter(pc.and_(pc.is_valid(rows["offset"]), pc.not_equal(rows["status"], "ok")))
    gone, *stay = held["key"].to_pylist()
    tombstones.bury(dataset.uri, [gone])
    compact(dataset)
    assert verify(dataset) == []
    found = b"".join(path.read_bytes() for path in (tmp_path / "d" / "shards").glob("*.held"))
    assert gone.encode() not in found
    assert all(key.encode() in found for key in stay)
    FakePoses.seen = 0
    other = recipe_of("detectors.1.fraction=0.1")
    reused = run(other, tmp_path / "reused", reuse=tmp_path / "d")
    assert FakePoses.seen == 0
    assert reused.status.rejects["removed"] == 1  # what is gone is not made again


def test_a_compaction_keeps_the_maps_of_rejected_images_that_are_still_there(
    tmp_path: Path, people: Path, recipe_of: Callable[..., Recipe], silent: type[Any]
) -> None:
    shutil.copytree(people, tmp_path / "in")
    uri, inputs = str(tmp_path / "d"), Inputs(images=[str(tmp_path / "in")])
    execution = Execution(threads=2)
    build(recipe_of(), uri, inputs, execution, executor=run_local, observer=silent())
    before = _held(uri)
    (tmp_path / "in" / "03.png").unlink()  # had maps, and was rejected
    (tmp_path / "in" / "16.png").unlink()  # a sample
    append_changes(uri, recipe_of(), Inputs(), execution, executor=run_local, observer=silent())
    assert compact(Dataset.open(uri)).units == 2
    left = _held(uri)
    assert left < before
    assert len(before - left) == 1
    assert verify(Dataset.open(uri)) == []
    assert rebuild_sampled(Dataset.open(uri), 9, execution) == []


def _held(dataset: str) -> set[str]:
    """Return the keys of rejected images of which the maps are there, and can be read."""
    found = set()
    for commit in read_commits(dataset):
        rows = tables.read_table(f"{dataset}/shards/{commit.rows.name}").to_pylist()
        for row in rows:
            if row["status"] != "ok" and row["offset"] is not None:
                assert commit.held is not None
                data = Path(dataset, "shards", commit.held.name).read_bytes()
                assert row["key"].encode() in data[row["offset"] :][: row["length"]]
                found.add(row["key"])
    return found


def test_damaged_maps_are_made_again(
    tmp_path: Path, run: Callable[..., BuildResult], recipe_of: Callable[..., Recipe]
) -> None:
    run(recipe_of(), tmp_path / "first")
    shards = tmp_path / "first" / "shards"
    for path in [*shards.glob("*.tar"), *shards.glob("*.held")]:
        path.write_bytes(bytes(path.stat().st_size))
    FakePoses.seen = 0
    other = recipe_of("detectors.1.fraction=0.5")
    run(other, tmp_path / "reused", reuse=tmp_path / "first")
    assert FakePoses.seen == IMAGES
    run(other, tmp_path / "fresh")
    assert differences(str(tmp_path / "fresh"), str(tmp_path / "reused")) == []


def test_maps_of_another_environment_are_named_as_such(
    tmp_path: Path,
    run: Callable[..., BuildResult],
    recipe_of: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a build without the flag, which makes them here, would raise a false alarm."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("pipeline.attempts.processor.model", lambda: "another CPU")
        run(recipe_of(), tmp_path / "first")
    other = recipe_of("detectors.1.fraction=0.5")
    run(other, tmp_path / "reused", reuse=tmp_path / "first")
    run(other, tmp_path / "fresh")
    reused, fresh = (
        read_commits(str(tmp_path / name))[0].environment for name in ("reused", "fresh")
    )
    assert reused == fresh | {"maps": reused["maps"]}
    assert not is_same_environment(reused, fresh)


class FakeNsfw:
    """Scores a picture by its first pixel, and counts."""

    seen = 0

    def __call__(self, images: Batch) -> list[float]:
        FakeNsfw.seen += len(images)
        return [int(image[0, 0, 0]) / IMAGES for image in images]


def test_an_unsafe_image_is_rejected_by_its_score_and_judged_again_from_it(
    tmp_path: Path,
    run: Callable[..., BuildResult],
    recipe_of: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(NsfwNetwork, "load", lambda *arguments: FakeNsfw())
    FakeNsfw.seen = 0
    run(recipe_of("rules.max_nsfw=0.5"), tmp_path / "first")
    dataset = Dataset.open(str(tmp_path / "first"))
    assert dataset.status().rejects["rejected:nsfw"] == IMAGES / 2 - 1
    assert FakeNsfw.seen == IMAGES
    answer = requery(dataset, changed_recipe(dataset, ["rules.max_nsfw=0.8"]))
    assert answer.after["rejected:nsfw"] == 3
    other = recipe_of("rules.max_nsfw=0.8")
    run(other, tmp_path / "reused", reuse=tmp_path / "first")
    assert (FakeNsfw.seen, FakePoses.seen) == (IMAGES, IMAGES)
    run(other, tmp_path / "fresh")
    assert differences(str(tmp_path / "fresh"), str(tmp_path / "reused")) == []
    run(recipe_of(), tmp_path / "unasked", reuse=tmp_path / "first")
    FakeNsfw.seen = FakePoses.seen = 0
    run(other, tmp_path / "asked", reuse=tmp_path / "unasked")
    assert (FakeNsfw.seen, FakePoses.seen) == (IMAGES, 0)  # no score was kept, but maps were
    assert differences(str(tmp_path / "fresh"), str(tmp_path / "asked")) == []


@pytest.mark.parametrize("change", ["seed=1", "image.resolution=128"])
def test_other_maps_are_not_reused(
    change: str, tmp_path: Path, run: Callable[..., BuildResult], recipe_of: Callable[..., Recipe]
) -> None:
    run(recipe_of(), tmp_path / "first")
    with pytest.raises(UsageError, match="cannot be reused"):
        run(recipe_of(change), tmp_path / "other", reuse=tmp_path / "first")
    dataset = Dataset.open(str(tmp_path / "first"))
    for one in (change, "detectors.0.low=3"):
        with pytest.raises(UsageError, match="how maps are made"):
            requery(dataset, changed_recipe(dataset, [one]))


def test_maps_of_another_version_of_a_detector_are_neither_reused_nor_rebuilt(
    tmp_path: Path,
    run: Callable[..., BuildResult],
    recipe_of: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(recipe_of(), tmp_path / "first")
    monkeypatch.setattr(CannySpec, "version", 2)
    dataset = Dataset.open(str(tmp_path / "first"))
    assert verify(dataset) == []
    assert same_maps(dataset, recipe_of()) == {"openpose_light"}
    with pytest.raises(UsageError, match="draws canny in another way"):
        rebuild_sampled(dataset, 1, Execution())
    with pytest.raises(DatasetError, match="differ in: code format"):
        run(recipe_of(), tmp_path / "first")
    run(recipe_of(), tmp_path / "second")
    run(recipe_of(), tmp_path / "third", reuse=tmp_path / "second")
    assert rebuild_sampled(Dataset.open(str(tmp_path / "third")), 1, Execution()) == []


def test_keypoints_of_all_pose_detectors_are_set_at_once(
    tmp_path: Path, run: Callable[..., BuildResult], recipe_of: Callable[..., Recipe]
) -> None:
    run(recipe_of(), tmp_path / "d")
    dataset = Dataset.open(str(tmp_path / "d"))
    changed = changed_recipe(dataset, ["rules.keypoints.fraction=0.5"])
    assert changed == changed_recipe(dataset, ["detectors.1.fraction=0.5"])
    with pytest.raises(RecipeError, match="did you mean 'fraction'"):
        changed_recipe(dataset, ["rules.keypoints.fracton=0.5"])


def test_rejected_images_keep_what_was_found(
    tmp_path: Path, run: Callable[..., BuildResult], recipe_of: Callable[..., Recipe]
) -> None:
    run(recipe_of(), tmp_path / "d")
    parts = (tmp_path / "d" / "shards").glob("*.parquet")
    rows = [row for part in parts for row in tables.read_table(str(part)).to_pylist()]
    for row in rows:
        found = json.loads(row["parameters"])
        assert "coverage" in found["canny"]
        people = found["openpose_light"]["people"]
        fraction = max(found["openpose_light"]["fractions"], default=0)
        assert (row["status"] == "ok") == (fraction >= 0.3)
        assert len(people) == len(found["openpose_light"]["fractions"])
