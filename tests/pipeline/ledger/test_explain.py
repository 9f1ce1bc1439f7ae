"""One image's whole story, by key, hash, path or file name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from catalog import storage
from catalog.dataset import tombstones
from catalog.dataset.compact import compact
from catalog.dataset.dataset import Dataset
from pipeline.build.build import BuildResult, build
from pipeline.build.local import run_local
from pipeline.commands import cli
from pipeline.errors import Exit, UsageError
from pipeline.ledger.explain import Story, explain
from pipeline.ledger.retry import retry_failed
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe
from pipeline.scan.source import Inputs
from tests.pipeline.silent import Silent

SMALL = "[red]small\x1b[31m.png"


@pytest.fixture
def source(pictures: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    shutil.copytree(pictures, folder)
    Image.new("RGB", (20, 20), (250, 10, 10)).save(folder / SMALL)
    (folder / "odd" / "broken.jpg").write_text("no picture")
    shutil.copy(folder / "odd" / "05.jpg", folder / "odd" / "copy.jpg")
    (folder / "odd" / "07.json").write_text('{"popularity": 3, "aesthetic": 5.5}')
    return folder


@pytest.fixture
def dataset(source: Path, tmp_path: Path, recipe: Recipe) -> Dataset:
    """A dataset of nine samples and an image that was away when it was built."""
    away = tmp_path / "03.png"

    def without(*arguments: Any) -> Any:
        (source / "odd" / "03.png").rename(away)
        return run_local(*arguments)

    strict = recipe.model_copy(update={"rules": recipe.rules.model_copy(update={"min_side": 32})})
    out, inputs = str(tmp_path / "d"), Inputs(images=[str(source)])
    build(strict, out, inputs, Execution(threads=2), executor=without, observer=Silent())
    away.rename(source / "odd" / "03.png")
    opened = Dataset.open(out)
    opened.write_subset(2, policy="top", seed=0)
    opened.write_subset(5, policy="top", seed=0)
    return opened


def only(dataset: Dataset, named: str) -> Story:
    (story,) = explain(dataset, named)
    return story


def test_a_sample_tells_where_it_was_found_and_where_it_lies(
    dataset: Dataset, source: Path
) -> None:
    path = source / "odd" / "09.png"
    row = dataset.view().table.to_pylist()[1]
    story = only(dataset, str(path))
    assert story.status == "ok"
    assert story.source["uri"] == storage.file_uri(path)
    assert (story.source["width"], story.source["height"]) == (168, 80)
    assert story.source["caption"] == "picture 9\n"
    assert story.key == row["key"]
    assert story.sample is not None
    assert story.sample["caption"] == "picture 9"
    for name in ("rank", "shard", "offset", "length", "caption"):
        assert story.sample[name] == row[name]
    assert story.subsets == ["2", "5"]
    (unit,) = story.units
    assert (unit.index, unit.generation, unit.status) == (0, 0, "ok")
    assert unit.parameters == json.loads(row["parameters"])
    assert unit.measures is not None
    assert "sharpness" in unit.measures
    assert unit.unit_id == dataset.unit_ids[0]
    assert (story.removed, story.quarantined) == (False, None)


def test_names_of_all_kinds_lead_to_it(dataset: Dataset, source: Path) -> None:
    story = only(dataset, "09.png")
    names = [story.key, story.key.upper(), story.sha256, story.source["uri"], "odd/09.png"]
    assert all(only(dataset, str(name)) == story for name in names)
    with pytest.raises(UsageError, match=r"no image .*9\.png"):
        explain(dataset, "9.png")  # the end of a name is none
    moved = source.parent / "moved.jpg"
    shutil.copy(source / "odd" / "09.png", moved)
    assert only(dataset, str(moved)) == story


def test_a_rule_tells_value_and_threshold(dataset: Dataset) -> None:
    story = only(dataset, SMALL)
    assert (story.status, story.value, story.threshold) == ("rejected:min_side", 20, 32)
    assert (story.units, story.sample, story.subsets) == ([], None, [])
    assert only(dataset, "broken.jpg").status == "rejected:not_an_image"


def test_a_duplicate_is_a_story_of_its_own(dataset: Dataset) -> None:
    kept = only(dataset, "05.jpg")
    assert kept.status == "ok"
    both = explain(dataset, str(kept.key))
    assert [story.status for story in both] == ["ok", "rejected:duplicate"]
    assert both[1].units == []
    assert both[1].sample is None


def test_what_failed_and_was_healed_has_two_outcomes(dataset: Dataset) -> None:
    assert only(dataset, "03.png").status == "failed:FileNotFoundError"
    aside = Path(dataset.uri) / "quarantine" / f"{only(dataset, '03.png').sha256}.json"
    aside.parent.mkdir()
    aside.write_text('{"detail": "the process died: SIGSEGV"}')
    assert only(dataset, "03.png").quarantined == "the process died: SIGSEGV"
    retry_failed(dataset.uri, Execution(threads=2), executor=run_local, observer=Silent())
    story = only(Dataset.open(dataset.uri), "03.png")
    assert story.status == "ok"
    assert [unit.status for unit in story.units] == ["failed:FileNotFoundError", "ok"]
    assert [unit.generation for unit in story.units] == [0, 1]
    assert story.sample is not None
    assert story.quarantined is None


def test_what_was_taken_down_says_so(dataset: Dataset) -> None:
    key = str(only(dataset, "09.png").key)
    tombstones.bury(dataset.uri, [key])
    story = only(dataset, "09.png")
    assert (story.status, story.removed, story.sample, story.subsets) == ("removed", True, None, [])
    compact(dataset)
    story = only(dataset, "09.png")
    assert (story.status, story.removed) == ("removed", True)
    assert story.source["caption"] is None


def test_an_unfinished_build_tells_what_is_planned(
    pictures: Path, tmp_path: Path, make: Callable[..., BuildResult]
) -> None:
    def none(*_: Any) -> Any:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        make(pictures, tmp_path / "e", executor=none)
    story = only(Dataset.open(str(tmp_path / "e")), "09.png")
    assert story.status == "planned"
    assert [unit.status for unit in story.units] == [None]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["controlnet-factory", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return call


def test_the_command_tells_it_in_lines(dataset: Dataset, run: Any) -> None:
    code, shown, _ = run("explain", dataset.uri, "09.png")
    assert code == Exit.DONE
    assert only(dataset, "07.jpg").source["scores"] == {"aesthetic": 5.5}
    assert "{'aesthetic': 5.5}" in run("explain", dataset.uri, "07.jpg")[1]
    for words in ("168x80", "picture 9", "rank 1", ".tar at byte 5,632", "canny", "low", "2, 5"):
        assert words in shown
    code, shown, _ = run("explain", dataset.uri, SMALL)
    assert "rejected:min_side" in shown
    assert "20, threshold 32" in shown
    assert "\x1b" not in shown
    assert "%5Bred%5Dsmall%1B%5B31m.png" in shown


def test_the_command_tells_it_in_json(dataset: Dataset, run: Any) -> None:
    key = only(dataset, "05.jpg").key
    code, shown, _ = run("explain", dataset.uri, key, "--json")
    told = json.loads(shown)["stories"]
    assert code == Exit.DONE
    assert json.loads(shown)["images"] == len(told)
    assert [one["status"] for one in told] == ["ok", "rejected:duplicate"]
    assert told[0]["units"][0]["parameters"]["canny"]["low"] >= 50
    assert told[0]["units"][0]["shard"] == told[0]["sample"]["shard"]


def test_many_of_one_name_are_listed_up_to_a_limit(dataset: Dataset, run: Any) -> None:
    key = only(dataset, "05.jpg").key
    _, shown, err = run("explain", dataset.uri, key, "--limit", 1)
    assert "rejected:duplicate" not in shown
    assert "1 of 2 images" in err


def test_no_such_image_is_one_message(dataset: Dataset, run: Any) -> None:
    code, _, told = run("explain", dataset.uri, "nothing.jpg")
    assert code == Exit.USAGE
    assert "no image of" in told
    assert "nothing.jpg" in told
