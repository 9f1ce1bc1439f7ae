"""A build resumes, repeats nothing, and gives the same bytes however it is run."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from catalog import storage, tables
from catalog.dataset import tombstones
from catalog.dataset.compact import compact
from catalog.dataset.dataset import Dataset
from catalog.dataset.verify import differences, verify
from catalog.errors import DatasetError
from catalog.images import decode_image
from detectors.base import Annotation, Refusal, Result
from detectors.canny import CannySpec
from pipeline.build.build import BuildResult, build
from pipeline.build.local import run_local
from pipeline.errors import UsageError
from pipeline.ledger.remake import rebuild_sampled
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe, load_recipe
from pipeline.scan.source import Inputs
from tests.pipeline.silent import Silent
from tests.rules import ANY_LOOK, ANY_LOOK_FLAGS

Make = Callable[..., BuildResult]


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_a_second_build_changes_nothing(pictures: Path, tmp_path: Path, make: Make) -> None:
    assert make(pictures, tmp_path / "d").changed
    before = snapshot(tmp_path / "d")
    again = make(pictures, tmp_path / "d")
    assert not again.changed
    assert again.units_run == 0
    assert snapshot(tmp_path / "d") == before


def test_the_order_of_the_sources_does_not_show(pictures: Path, tmp_path: Path, make: Make) -> None:
    make([pictures / "odd", pictures / "even"], tmp_path / "a")
    make([pictures / "even", pictures / "odd"], tmp_path / "b")
    assert differences(str(tmp_path / "a"), str(tmp_path / "b")) == []


def test_a_difference_is_found(pictures: Path, tmp_path: Path, make: Make) -> None:
    make(pictures, tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shard = min((tmp_path / "b" / "shards").glob("*.tar"))
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    assert differences(str(tmp_path / "a"), str(tmp_path / "b")) == [
        f"bytes differ: shards/{shard.name}"
    ]
    assert any(shard.name in fault for fault in verify(Dataset.open(str(tmp_path / "b"))))
    assert verify(Dataset.open(str(tmp_path / "a"))) == []


def test_samples_pair_image_condition_and_caption(
    pictures: Path, tmp_path: Path, make: Make
) -> None:
    make(pictures, tmp_path / "d")
    dataset = Dataset.open(str(tmp_path / "d"))
    view = dataset.view()
    assert len(view) == 10
    for index in range(len(view)):
        sample = view.read(index)
        image, edges = decode_image(sample.image), decode_image(sample.conditions["canny"])
        assert image.shape == edges.shape == (64, 64, 3)
        drawn = sample.metadata["conditions"]["canny"]
        assert 50 <= drawn["low"] <= 150
        assert 50 <= drawn["high"] - drawn["low"] <= 150
        assert sample.metadata["caption"]["text"] == sample.caption
    captions = {view.read(index).caption for index in range(len(view))}
    assert captions == {"", *(f"picture {number}" for number in range(10) if number % 4)}


def test_an_upright_jpeg_of_the_final_size_is_stored_as_it_is(tmp_path: Path, make: Make) -> None:
    source = tmp_path / "in" / "a.jpg"
    source.parent.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(source, quality=77)
    make(source.parent, tmp_path / "d")
    assert Dataset.open(str(tmp_path / "d")).view().read(0).image == source.read_bytes()


def test_uncropped_sides_are_multiples_of_64(tmp_path: Path, make: Make) -> None:
    source = tmp_path / "in" / "a.png"
    source.parent.mkdir()
    Image.new("RGB", (300, 100), "red").save(source)
    recipe = load_recipe("canny", ["image.resolution=128", "image.crop=none", *ANY_LOOK])
    make(source.parent, tmp_path / "d", recipe=recipe)
    sample = Dataset.open(str(tmp_path / "d")).view().read(0)
    assert decode_image(sample.image).shape == (128, 384, 3)


def test_a_large_jpeg_is_decoded_at_reduced_scale_and_says_so(tmp_path: Path, make: Make) -> None:
    source = tmp_path / "in" / "a.jpg"
    source.parent.mkdir()
    Image.linear_gradient("L").resize((600, 400)).convert("RGB").save(source)
    make(source.parent, tmp_path / "d")
    sample = Dataset.open(str(tmp_path / "d")).view().read(0)
    assert sample.metadata["source"]["jpeg_scale"] == 4


def test_sigkill_and_the_same_command_give_the_uninterrupted_bytes(
    tmp_path: Path, recipe: Recipe, make: Make
) -> None:
    source, broken, whole = tmp_path / "in", tmp_path / "broken", tmp_path / "whole"
    source.mkdir()
    generator = np.random.default_rng(1)
    for number in range(60):
        noise = generator.integers(0, 256, (300, 300 + number, 3), dtype=np.uint8)
        Image.fromarray(noise).save(source / f"{number}.png", compress_level=1)
    command = [sys.executable, "-m", "pipeline", "build", "canny", "--local"]
    command += ["--images", str(source), "--out", str(broken)]
    command += ["--set", "image.resolution=64", "--set", "samples_per_unit=1", *ANY_LOOK_FLAGS]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list((broken / "commits").glob("*.json"))) < 5:
        assert process.poll() is None, "the build ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    committed = {path.stem for path in (broken / "commits").glob("*.json")}
    assert 5 <= len(committed) < 60
    (broken / "tmp" / f"{min(committed)}.01234567").mkdir(parents=True, exist_ok=True)

    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "60 of 60 committed" in finished.stdout
    one_a_unit = recipe.model_copy(update={"samples_per_unit": 1})
    make(source, whole, recipe=one_a_unit)
    assert differences(str(whole), str(broken)) == []
    assert not (broken / "tmp").exists()
    last = max((broken / "logs").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    events = [json.loads(line) for line in last.read_text().splitlines()]
    run_again = {event["unit_id"] for event in events if event["event"] == "unit"}
    assert len(run_again) == 60 - len(committed)
    assert not run_again & committed


def test_another_recipe_is_refused_and_named(
    pictures: Path, tmp_path: Path, recipe: Recipe, make: Make
) -> None:
    make(pictures, tmp_path / "d")
    other = recipe.model_copy(update={"seed": 1})
    with pytest.raises(DatasetError, match=r"differ in: seed \(0 there, 1 here\)"):
        make(pictures, tmp_path / "d", recipe=other)


def test_other_images_are_refused(pictures: Path, tmp_path: Path, make: Make) -> None:
    make(pictures, tmp_path / "d")
    with pytest.raises(UsageError, match="plan is frozen"):
        make(pictures / "odd", tmp_path / "d")


def test_a_source_table_must_tell_of_the_same_images(
    pictures: Path, tmp_path: Path, make: Make, recipe: Recipe
) -> None:
    sources = {}
    for name, images in (("all", pictures), ("odd", pictures / "odd")):
        make(images, tmp_path / name)
        sources[name] = str(tmp_path / name / "source.parquet")
    again = partial(build, recipe, str(tmp_path / "all"), execution=Execution(), observer=Silent())
    gone = Dataset.open(str(tmp_path / "all")).view().keys()[:1]
    tombstones.bury(str(tmp_path / "all"), gone)
    compact(Dataset.open(str(tmp_path / "all")))
    kept = tmp_path / "kept.parquet"
    make(pictures, tmp_path / "again")
    shutil.copyfile(tmp_path / "again" / "source.parquet", kept)
    assert again(inputs=Inputs(source=str(kept)), executor=run_local).units_run == 0
    with pytest.raises(UsageError, match="planned from other images than"):
        again(inputs=Inputs(source=sources["odd"]), executor=run_local)
    with pytest.raises(UsageError, match="was planned with include"):
        again(inputs=Inputs(include=["*.png"]), executor=run_local)


def test_a_slash_at_the_end_names_the_same_folder(s3: str, tmp_path: Path, make: Make) -> None:
    Image.effect_noise((80, 80), 90).convert("RGB").save(tmp_path / "a.png")
    storage.write_atomic(f"{s3}/in/a.png", (tmp_path / "a.png").read_bytes())
    for slash in ("", "/"):
        make(f"{s3}/in{slash}", tmp_path / "d")


def test_an_image_that_changes_after_the_scan_is_a_recorded_failure(
    pictures: Path, tmp_path: Path, recipe: Recipe, make: Make
) -> None:
    source = tmp_path / "in"
    shutil.copytree(pictures, source)

    def change_first(*arguments: Any) -> Any:
        from pipeline.build.local import run_local

        (source / "odd" / "01.jpg").write_bytes((source / "odd" / "03.png").read_bytes())
        (source / "odd" / "05.jpg").unlink()
        return run_local(*arguments)

    result = make(source, tmp_path / "d", executor=change_first)
    assert result.status.samples == 8
    assert result.status.rejects == {"failed:FileNotFoundError": 1, "failed:SourceChanged": 1}
    assert result.failed_share == pytest.approx(0.2)


def test_rebuilt_units_have_the_committed_bytes(pictures: Path, tmp_path: Path, make: Make) -> None:
    make(pictures, tmp_path / "d")
    dataset = Dataset.open(str(tmp_path / "d"))
    assert rebuild_sampled(dataset, 2, Execution()) == []
    changed = json.loads((tmp_path / "d" / "recipe.json").read_text())
    changed["recipe"]["seed"] = 5
    (tmp_path / "d" / "recipe.json").write_text(json.dumps(changed))
    faults = rebuild_sampled(Dataset.open(str(tmp_path / "d")), 2, Execution())
    assert len(faults) == 2
    assert "rebuilds to other bytes" in faults[0]


def _picky(spec: CannySpec, image: np.ndarray, found: object, draws: object) -> Result:
    """A test double: fails on one picture, refuses another, and marks the rest."""
    if image[0, 0, 0] == 10:
        raise FloatingPointError("the double fails on this picture")
    if image[0, 0, 0] == 20:
        return Refusal(rule="keypoints", value=0.1, threshold=0.3, parameters={"people": [0.1]})
    return Annotation(map=image[:, :, 0] // 40)


def test_what_a_detector_does_to_one_image_costs_that_image(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for grey in (10, 20, 30, 40):
        Image.new("RGB", (64, 64), (grey, grey, grey)).save(source / f"{grey}.png")
    monkeypatch.setattr(CannySpec, "annotate", _picky)
    recipe = load_recipe("canny", ["image.resolution=64", "rules.min_coverage=0.5", *ANY_LOOK])
    result = make(source, tmp_path / "d", recipe=recipe)
    assert result.status.samples == 1
    assert result.status.rejects == {
        "failed:FloatingPointError": 1,
        "rejected:coverage": 1,
        "rejected:keypoints": 1,
    }
    (rows,) = (tmp_path / "d" / "shards").glob("*.parquet")
    kept = {row["status"]: row["parameters"] for row in tables.read_table(str(rows)).to_pylist()}
    assert json.loads(kept["rejected:keypoints"]) == {"canny": {"people": [0.1]}}
    assert json.loads(kept["rejected:coverage"]) == {"canny": {"coverage": 0.0}}
    assert json.loads(kept["ok"]) == {"canny": {"coverage": 1.0}}


def test_the_log_names_each_unit_once(pictures: Path, tmp_path: Path, make: Make) -> None:
    make(pictures, tmp_path / "d")
    (log,) = (tmp_path / "d" / "logs").glob("*.jsonl")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", *["unit"] * 4, "done"]
    units = [event["unit_id"] for event in events if event["event"] == "unit"]
    assert sorted(units) == sorted(events[0]["pending"])
    assert events[0]["pending"] == Dataset.open(str(tmp_path / "d")).unit_ids
