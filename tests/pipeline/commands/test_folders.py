"""A view as folders is read by what other trainers read with."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.dataset.dataset import Dataset
from catalog.images import decode_image
from catalog.png import decode_png
from detectors.base import Batch
from detectors.keypoints import Person
from detectors.openpose import LightNetwork
from pipeline.build.build import BuildResult
from pipeline.commands import cli
from pipeline.errors import Exit
from pipeline.recipe.recipe import load_recipe
from tests.rules import ANY_LOOK

_RECIPE = """
name: two
samples_per_unit: 4
image: {resolution: 64}
detectors: [{detector: canny}, {detector: tile}]
captions: {captioner: sidecar}
"""


@pytest.fixture
def dataset(pictures: Path, make: Callable[..., BuildResult], tmp_path: Path) -> Dataset:
    (tmp_path / "two.yaml").write_text(_RECIPE)
    make(pictures, tmp_path / "d", recipe=load_recipe(str(tmp_path / "two.yaml"), ANY_LOOK))
    return Dataset.open(str(tmp_path / "d"))


def materialize(dataset: Dataset, out: Path, *more: str, layout: str = "folders") -> int:
    command = ["materialize", dataset.uri, "--layout", layout, "--out", str(out), *more]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["controlnet-factory", *command])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return int(ended.value.code or 0)


def test_each_reader_finds_pictures_maps_and_captions(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    out = tmp_path / "out"
    assert materialize(dataset, out, "--condition", "tile") == Exit.DONE
    view = dataset.view()
    samples = {sample.key: sample for sample in (view.read(at) for at in range(len(view)))}
    assert {path.stem for path in (out / "images").glob("*.jpg")} == samples.keys()
    for key, sample in samples.items():
        assert (out / "images" / f"{key}.txt").read_text() == sample.caption
        for name in ("canny", "tile"):
            stored = (out / "conditions" / name / f"{key}.png").read_bytes()
            assert stored == sample.conditions[name]
    cache = str(tmp_path / "cache")
    rows = datasets.load_dataset("imagefolder", data_dir=str(out), split="train", cache_dir=cache)
    assert set(rows.column_names) == {"image", "conditioning_image", "text"}
    assert len(rows) == len(view)
    for row, sample in zip(rows, (view.read(at) for at in range(len(view))), strict=True):
        assert row["text"] == sample.caption
        assert (np.asarray(row["image"]) == decode_image(sample.image)).all()
        assert (
            np.asarray(row["conditioning_image"]) == decode_png(sample.conditions["tile"])
        ).all()
    lines = [json.loads(line) for line in (out / "paths.jsonl").read_text().splitlines()]
    assert all(
        Path(line[name]).is_file()
        for line in lines
        for name in ("image", "conditioning_image", "image_path", "control_path")
    )
    assert [line["text"] for line in lines] == [row["text"] for row in rows]


@pytest.mark.parametrize("condition", ["canny", "tile"])
def test_load_dataset_has_the_columns_of_diffusers_scripts(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, condition: str
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    out, cache = tmp_path / "out", str(tmp_path / "cache")
    more = ("--condition", condition, "--samples-per-tar", "4")
    assert materialize(dataset, out, *more, layout="hf") == Exit.DONE
    assert len(list((out / "data").iterdir())) == 3
    rows = datasets.load_dataset(str(out), split="train", cache_dir=cache)
    view = dataset.view()
    assert rows.column_names == ["image", "conditioning_image", "text"]
    assert len(rows) == len(view)
    for at, row in enumerate(rows):
        sample = view.read(at)
        assert row["text"] == sample.caption
        assert np.array_equal(row["image"], decode_image(sample.image))
        assert np.array_equal(row["conditioning_image"], decode_image(sample.conditions[condition]))


def read_mds(folder: Path) -> list[dict[str, bytes]]:
    """Read MDS shards as version 2 of the format says; each sample's columns as bytes."""
    index = json.loads((folder / "index.json").read_bytes())
    assert index["version"] == 2
    found = []
    for shard in index["shards"]:
        assert (shard["format"], shard["compression"], shard["zip_data"]) == ("mds", None, None)
        data = (folder / shard["raw_data"]["basename"]).read_bytes()
        assert len(data) == shard["raw_data"]["bytes"]
        (count,) = np.frombuffer(data, "<u4", 1)
        assert count == shard["samples"]
        offsets = np.frombuffer(data, "<u4", count + 1, offset=4).tolist()
        names = shard["column_names"]
        assert names == sorted(names)
        for begin, end in pairwise(offsets):
            sizes = np.frombuffer(data, "<u4", len(names), offset=begin).tolist()
            ends = begin + 4 * len(names) + np.cumsum([0, *sizes])
            assert ends[-1] == end
            found.append({n: data[a:b] for n, (a, b) in zip(names, pairwise(ends), strict=True)})
    return found


def test_mds_shards_hold_every_column_of_every_sample(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert materialize(dataset, out, "--samples-per-tar", "4", layout="mds") == Exit.DONE
    assert sorted(path.name for path in out.iterdir()) == [
        "index.json",
        *(f"shard.{number:05}.mds" for number in range(3)),
    ]
    view, found = dataset.view(), read_mds(out)
    assert len(found) == len(view)
    for at, columns in enumerate(found):
        sample = view.read(at)
        assert columns == {
            "caption": sample.caption.encode(),
            "key": sample.key.encode(),
            "image": sample.image,
            **sample.conditions,
        }
    (encodings,) = {tuple(one["column_encodings"]) for one in json.loads(
        (out / "index.json").read_bytes()
    )["shards"]}  # fmt: skip
    assert encodings == ("png", "str", "jpeg", "str", "png")  # canny, caption, image, key, tile


class Poses:
    """A network that finds one person of a foretellable shape in each picture."""

    def __call__(self, images: Batch) -> list[list[Person]]:
        keypoints = np.column_stack([np.arange(18) * 3 + 2, np.arange(18) + 5, np.full(18, 0.9)])
        return [[Person(keypoints=keypoints, score=0.8)] for _ in images]


@pytest.fixture
def poses(
    pictures: Path,
    make: Callable[..., BuildResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Dataset:
    monkeypatch.setattr(LightNetwork, "load", lambda self, device, precision: Poses())
    recipe = tmp_path / "poses.yaml"
    recipe.write_text(_RECIPE.replace("{detector: tile}", "{detector: openpose_light}"))
    make(pictures, tmp_path / "p", recipe=load_recipe(str(recipe), ANY_LOOK))
    return Dataset.open(str(tmp_path / "p"))


def test_people_lie_beside_their_pictures(poses: Dataset, tmp_path: Path) -> None:
    shown = ("--condition", "openpose_light")
    assert materialize(poses, tmp_path / "one", *shown, "--people", "openpose") == Exit.DONE
    keys = {path.stem for path in (tmp_path / "one" / "images").glob("*.jpg")}
    files = list((tmp_path / "one" / "conditions" / "openpose_light").glob("*.json"))
    assert {path.stem for path in files} == keys
    told = json.loads(files[0].read_text())
    assert told["people"][0]["pose_keypoints_2d"][:6] == [2, 5, 0.9, 5, 6, 0.9]
    assert (told["canvas_width"], told["canvas_height"]) == (64, 64)
    assert not list((tmp_path / "one" / "conditions" / "canny").glob("*.json"))

    assert materialize(poses, tmp_path / "two", *shown, "--people", "coco") == Exit.DONE
    coco = json.loads((tmp_path / "two" / "people" / "openpose_light.json").read_text())
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    assert {Path(name).stem for name in names.values()} == keys
    assert all((tmp_path / "two" / name).is_file() for name in names.values())
    assert {one["image_id"] for one in coco["annotations"]} == names.keys()
    assert [one["id"] for one in coco["annotations"]] == list(range(1, len(keys) + 1))


def test_people_are_refused_where_there_are_none(
    dataset: Dataset, poses: Dataset, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    line = ("--condition", "tile", "--people", "coco")
    assert materialize(dataset, out, *line) == Exit.USAGE
    assert "none of the conditions (canny, tile) knows people" in capsys.readouterr().err
    assert materialize(poses, out, "--people", "coco", layout="hf") == Exit.USAGE
    assert "--people goes with --layout folders" in capsys.readouterr().err
    assert not out.exists()


def test_what_cannot_be_is_refused(dataset: Dataset, tmp_path: Path, capsys: Any) -> None:
    assert materialize(dataset, tmp_path / "out") == Exit.FAILED
    assert (
        "choose the condition that trainers are shown, of: canny, tile" in capsys.readouterr().err
    )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    assert materialize(dataset, tmp_path / "full", "--condition", "tile") == Exit.FAILED
    assert "is not empty" in capsys.readouterr().err
