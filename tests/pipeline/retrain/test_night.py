"""Nights: what is new is built and judged, what is worse is refused, and a stop loses nothing."""

import json
import shutil
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from catalog.dataset.dataset import Dataset
from catalog.dataset.verify import verify
from catalog.source import parts
from catalog.source.parts import Part
from catalog.source.rows import SourceRow
from detectors.base import Batch
from detectors.keypoints import OPENPOSE18, Person
from detectors.openpose import LightNetwork
from pipeline.attempts.outcome import UnitFailure, UnitReport
from pipeline.build.build import BuildResult
from pipeline.build.local import run_local
from pipeline.commands.cli import app
from pipeline.errors import BuildError, UsageError
from pipeline.recipe.recipe import Recipe, load_recipe
from pipeline.retrain.journal import Outcome
from pipeline.retrain.night import Ended, Means, run_night
from pipeline.retrain.nightly import Nightly
from pipeline.retrain.promotions import current, history
from pipeline.scan import chunks
from pipeline.scan.chunks import scan_here
from tests.pipeline.silent import Silent
from tests.rules import ANY_LOOK
from training.data.augment import Augment
from training.data.examples import Examples
from training.data.loader import IndexBatches, load_batches

SETS = ["image.resolution=64", "samples_per_unit=3", *ANY_LOOK]


@pytest.fixture
def source(pictures: Path, tmp_path: Path) -> Path:
    shutil.copytree(pictures, tmp_path / "in")
    return tmp_path / "in"


@pytest.fixture
def schedule(source: Path, tmp_path: Path) -> dict[str, Any]:
    """What nightly.yaml says, of a dataset alone."""
    return {
        "folder": str(tmp_path / "nightly"),
        "recipe": "canny",
        "set": SETS,
        "images": [str(source)],
        "removals": str(tmp_path / "removals.txt"),
        "subsets": ["5", "500"],
    }


@pytest.fixture
def night(schedule: dict[str, Any]) -> Callable[..., Ended]:
    """Do a night's work in this process."""

    def run(name: str, executor: Any = run_local, **changes: Any) -> Ended:
        config = Nightly.model_validate({**schedule, **changes})
        means = Means(executor=executor, scanner=scan_here, observer=Silent(), trainer=None)
        recipe = load_recipe(config.recipe, config.overrides)
        return run_night(config, recipe, name, means, owner="a test")

    return run


def draw(path: Path, side: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((side, side + 8), Image.Resampling.NEAREST).save(path)


def test_a_week(
    source: Path,
    schedule: dict[str, Any],
    night: Callable[..., Ended],
    make: Callable[..., BuildResult],
    recipe: Recipe,
    tmp_path: Path,
) -> None:
    first = night("monday")
    assert (first.outcome, first.stages["snapshot"]["samples"]) == (Outcome.PROMOTED, 10)
    assert first.stages["views"]["subsets"] == ["5"]
    assert night("tuesday").outcome == Outcome.NOTHING_NEW
    draw(source / "new.png", 150, 1)
    (source / "odd" / "03.txt").write_text("another\n")
    (source / "even" / "06.png").unlink()
    third = night("wednesday")
    assert third.outcome == Outcome.PROMOTED
    changes = third.stages["changes"]
    assert (changes["added"], changes["changed"], changes["removed"]) == (1, 1, 1)
    _poison(source, 30)
    fourth = night("thursday")
    assert fourth.outcome == Outcome.REFUSED
    assert "of the 30 images that came are samples" in fourth.sentence
    now = current(schedule["folder"])
    assert now is not None
    assert (now.night, now.number) == ("wednesday", 2)
    again = night("friday")
    assert again.outcome == Outcome.REFUSED
    assert again.sentence.startswith("As in night thursday, and nothing changed since")
    shutil.rmtree(source / "poison")
    gone = Dataset.open(now.dataset).view().keys()[0]
    Path(schedule["removals"]).write_text(f"{gone}\n")
    last = night("saturday")
    assert last.outcome == Outcome.PROMOTED
    assert last.stages["changes"]["why"] == {"removed": 1}
    opened = Dataset.open(now.dataset)
    assert opened.snapshots() == [
        *("monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
    ]
    assert gone not in set(opened.view(snapshot="monday").keys())
    assert verify(opened) == []
    make(source, tmp_path / "at-once")
    whole = Dataset.open(str(tmp_path / "at-once")).view().table
    left = [row for row in whole.to_pylist() if row["key"] != gone]
    ours = opened.view(snapshot="saturday").table.to_pylist()
    assert [row["block_sha256"] for row in ours] == [row["block_sha256"] for row in left]


def test_a_night_that_was_stopped_goes_on(
    source: Path, schedule: dict[str, Any], night: Callable[..., Ended]
) -> None:
    units: list[int] = []

    def stops(
        dataset: str, recipe: Recipe, execution: Any, pending: Sequence[int], run: str
    ) -> Generator[UnitReport | UnitFailure]:
        units.extend(pending[:1])
        yield from run_local(dataset, recipe, execution, pending[:1], run)
        raise BuildError("stopped")

    with pytest.raises(BuildError, match="stopped"):
        night("one", executor=stops)
    assert current(schedule["folder"]) is None
    ended = night("one")
    assert ended.outcome == Outcome.PROMOTED
    assert ended.stages["snapshot"]["samples"] == 10
    assert night("one") == ended  # it has ended: it is told of, and nothing is done
    assert len(history(schedule["folder"])) == 1


def test_a_reader_goes_on_while_another_night_is_promoted(
    source: Path, schedule: dict[str, Any], night: Callable[..., Ended]
) -> None:
    night("one")
    now = current(schedule["folder"])
    assert now is not None
    view = Dataset.open(now.dataset).view(snapshot=now.night)
    examples = Examples(
        view, "canny", seed=0, prompt_dropout=0, multiple=8, augment=Augment(crop=64)
    )
    indices = IndexBatches(start=0, stop=10, batch_size=1)
    loader = load_batches(examples, indices, workers=1)
    begun = next(loader)
    for path in (source / "even").iterdir():
        path.unlink()
    draw(source / "new.png", 150, 1)
    assert night("two", gate={"size_drop": 0.9}).outcome == Outcome.PROMOTED
    assert len(Dataset.open(now.dataset).view()) < 10
    assert len([begun, *loader]) == 10


def test_another_recipe_runs_what_depends_on_it_alone(
    source: Path,
    schedule: dict[str, Any],
    night: Callable[..., Ended],
    make: Callable[..., BuildResult],
    random_blip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another range of canny: no file is scanned, no network runs and no caption is generated."""
    monkeypatch.setattr(LightNetwork, "load", lambda *_: OnePerson())
    scanned: list[str] = []

    def scan_part(part: Part, **how: Any) -> list[SourceRow]:
        scanned.append(part.uri)
        return parts.scan_part(part, **how)

    monkeypatch.setattr(chunks, "scan_part", scan_part)
    recipe = tmp_path / "two.yaml"
    recipe.write_text("name: two\ndetectors: [{detector: canny}, {detector: openpose_light}]\n")
    blip = [*SETS, "captions.captioner=blip", f"captions.model={random_blip}"]
    first = night("monday", recipe=str(recipe), set=blip)
    assert (first.outcome, OnePerson.seen) == (Outcome.PROMOTED, 10)
    draw(source / "new.png", 150, 1)
    scanned.clear()
    wider = [*blip, "detectors.0.low=[10, 150]"]
    second = night("tuesday", recipe=str(recipe), set=wider)
    # a random BLIP has nothing to say of some images: of these no map was kept
    untold = first.stages["snapshot"]["rejects"].get("rejected:caption", 0)
    assert (second.outcome, OnePerson.seen) == (Outcome.PROMOTED, 11 + untold)
    assert len(scanned) == 1
    now = current(schedule["folder"])
    assert now is not None
    assert now.dataset == second.stages["build"]["dataset"] != first.stages["build"]["dataset"]
    (log,) = (Path(now.dataset) / "logs").glob("*.jsonl")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    units = [event for event in events if event["event"] == "unit"]
    assert max(event["network_images"] for event in units) == 1 + untold  # so far, each says
    assert sum(event["caption_batches"] for event in units) == 1
    make(source, tmp_path / "at-once", recipe=load_recipe(str(recipe), wider))
    whole = Dataset.open(str(tmp_path / "at-once")).view().table
    assert Dataset.open(now.dataset).view().table["block_sha256"] == whole["block_sha256"]


class OnePerson:
    """A network that finds the same person in every picture, and counts."""

    seen = 0

    def __call__(self, images: Batch) -> list[list[Person]]:
        OnePerson.seen += len(images)
        keypoints = np.random.default_rng(0).uniform(1, 60, (len(OPENPOSE18), 3))
        return [[Person(keypoints=keypoints, score=0.5)] for _ in images]


def test_the_command(source: Path, schedule: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "nightly.yaml"
    file.write_text(json.dumps(schedule))  # JSON is YAML
    runner = CliRunner()
    command = ["rebuild", "--config", str(file), "--local", "--run-id"]
    first = runner.invoke(app, [*command, "one", "--set", "set.1=samples_per_unit=4"])
    assert first.exit_code == 0, first.output
    summary = json.loads(first.stdout.splitlines()[-1])
    assert (summary["outcome"], summary["samples"], summary["promotion"]) == ("promoted", 10, 1)
    folder = Path(schedule["folder"])
    assert json.loads((folder / "CURRENT.json").read_text())["night"] == "one"
    assert "controlnet_factory_current_promotion 1.0" in (folder / "metrics.prom").read_text()
    page = (folder / "nights" / "one" / "morning.html").read_text()
    assert "<h1>Promoted</h1>" in page
    assert 'href="report.html"' in page
    _poison(source, 30)
    same = ["--set", "set.1=samples_per_unit=4"]
    second = runner.invoke(app, [*command, "two", *same])
    assert second.exit_code == 3, second.output
    assert json.loads(second.stdout.splitlines()[-1])["outcome"] == "refused"
    page = (folder / "nights" / "two" / "morning.html").read_text()
    assert "<dt>images that came</dt><dd>30</dd>" in page
    assert 'href="report.html"' not in page  # it was refused before one was written
    draw(source / "a.png", 160, 3)
    shutil.rmtree(source / "poison")
    assert runner.invoke(app, [*command, "three", *same]).exit_code == 0
    back = runner.invoke(app, ["rollback", "--config", str(file), "--to", "1", *same])
    assert "current: night one, promotion 3 (rolled back to 1)" in back.output
    listed = runner.invoke(app, ["nights", "--config", str(file), "--json"])
    assert [one["night"] for one in json.loads(listed.stdout)["promotions"]] == [
        "one",
        "three",
        "one",
    ]


def test_old_nights_go(source: Path, schedule: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "nightly.yaml"
    file.write_text(json.dumps({**schedule, "keep": {"nights": 2}}))
    for number in range(4):
        draw(source / "new" / f"{number}.png", 150 + number, number)
        command = ["rebuild", "--config", str(file), "--local", "--run-id", f"n{number}"]
        assert CliRunner().invoke(app, command).exit_code == 0
    now = current(schedule["folder"])
    assert now is not None
    assert Dataset.open(now.dataset).snapshots() == ["n2", "n3"]
    refused = CliRunner().invoke(app, ["rollback", "--config", str(file), "--to", "1"])
    assert isinstance(refused.exception, UsageError)
    assert "snapshot n0" in str(refused.exception)


def _poison(source: Path, count: int) -> None:
    """Add files that are no images, as a broken export leaves them."""
    for number in range(count):
        path = source / "poison" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\xff\xd8\xff" + bytes([number]) * 40)
