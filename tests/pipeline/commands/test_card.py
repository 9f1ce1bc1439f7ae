"""The card is read by `datasets` and `mlcroissant`, offline and with no code of ours."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from catalog import storage
from catalog.dataset import tombstones
from catalog.dataset.compact import compact
from catalog.dataset.dataset import Dataset
from catalog.dataset.verify import verify
from catalog.errors import DatasetError
from catalog.images import decode_image
from catalog.publish.card import write_card
from catalog.publish.card_text import _size
from pipeline.build.build import BuildResult
from pipeline.commands import cli
from pipeline.recipe.recipe import load_recipe

_RECIPE = """
name: edges
samples_per_unit: 4
image: {resolution: 64}
detectors:
  - {detector: canny, low: 50, gap: 50}
  - {detector: canny, low: 150, gap: 50, condition: strong}
"""


@pytest.fixture
def dataset(pictures: Path, make: Callable[..., BuildResult], tmp_path: Path) -> Dataset:
    """Ten samples with two conditions in shards of 4, 4 and 2; subsets that end where they like."""
    (tmp_path / "edges.yaml").write_text(_RECIPE)
    make(pictures, tmp_path / "d", recipe=load_recipe(str(tmp_path / "edges.yaml")))
    made = Dataset.open(str(tmp_path / "d"))
    for count in (2, 4, 6):
        made.write_subset(count, policy="top", seed=0)
    made.write_subset(5, policy="stratified", seed=3)
    return made


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Read a configuration as a stranger does: from a folder, by name."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    reads = iter(range(1000))

    def read(dataset: Dataset, config: str, *, streaming: bool = False) -> Any:
        cache = str(tmp_path / "cache" / str(next(reads)))
        return datasets.load_dataset(
            dataset.uri, config, split="train", cache_dir=cache, streaming=streaming
        )

    return read


def keys_of(dataset: Dataset, subset: str | None = None) -> list[str]:
    return list(dataset.view(subset).table["key"].to_pylist())


def front_matter(dataset: Dataset) -> dict[str, Any]:
    text = Path(dataset.path("README.md")).read_text()
    return dict(yaml.safe_load(text.split("---\n")[1]))


def test_every_subset_is_a_configuration(dataset: Dataset, load: Callable[..., Any]) -> None:
    made = write_card(dataset)
    assert [config.name for config in made.configs] == [
        "default", "canny", "strong", "2", "4", "5-stratified-3", "6",
    ]  # fmt: skip
    whole = Counter(dataset.view().table["shard"].to_pylist())
    held = Counter(dataset.view("5-stratified-3").table["shard"].to_pylist())
    scattered = sum(number for shard, number in held.items() if number < whole[shard])
    assert made.copied == 2 + 2 + scattered  # 4 is a shard; 6 is one and two samples of the next
    for name in ("2", "4", "5-stratified-3", "6"):
        rows = load(dataset, name)
        assert sorted(rows["__key__"]) == sorted(keys_of(dataset, name))
        assert rows.column_names == ["__key__", "jpg", "canny.png", "strong.png", "txt"]
    assert list(load(dataset, "6")["__key__"]) == keys_of(dataset, "6")


@pytest.mark.parametrize("streaming", [False, True])
def test_every_condition_is_a_configuration(
    dataset: Dataset, load: Callable[..., Any], streaming: bool
) -> None:
    write_card(dataset)
    rows = list(load(dataset, "strong", streaming=streaming))
    assert [row["__key__"] for row in rows] == keys_of(dataset)
    assert set(rows[0]) == {"__key__", "jpg", "strong.png", "txt"}
    assert rows[0]["strong.png"].size == rows[0]["jpg"].size == (64, 64)
    sample = dataset.view().read(0)
    assert rows[0]["txt"] == sample.caption
    assert np.array_equal(rows[0]["strong.png"], decode_image(sample.conditions["strong"]))
    assert np.array_equal(rows[0]["jpg"], decode_image(sample.image))


def test_all_is_what_a_reader_gets_who_names_nothing(
    dataset: Dataset, load: Callable[..., Any]
) -> None:
    write_card(dataset)
    assert front_matter(dataset)["configs"][0]["default"] is True
    assert list(load(dataset, "default")["__key__"]) == keys_of(dataset)


def test_a_tar_that_no_commit_names_is_in_no_configuration(
    dataset: Dataset, load: Callable[..., Any]
) -> None:
    shard = Path(dataset.path("shards", dataset.view().table["shard"][0].as_py()))
    shutil.copy(shard, shard.with_name("000000-01234567.tar"))
    write_card(dataset)
    for name in ("default", "canny"):
        assert list(load(dataset, name)["__key__"]) == keys_of(dataset)


def test_what_the_owner_wrote_stays(dataset: Dataset) -> None:
    write_card(dataset)
    path = Path(dataset.path("README.md"))
    text = path.read_text()
    assert "# license:" in text
    assert "license" not in front_matter(dataset)
    text = text.replace("---\n", "---\nlicense: cc-by-4.0\npretty_name: Ours\n", 1)
    path.write_text(text.replace("pretty_name: edges\n", "") + "\nA word by the owner.\n")
    dataset.write_subset(3, policy="top", seed=0)
    write_card(dataset)
    front = front_matter(dataset)
    assert (front["license"], front["pretty_name"]) == ("cc-by-4.0", "Ours")
    assert "3" in [config["config_name"] for config in front["configs"]]
    again = path.read_text()
    assert again.endswith("\nA word by the owner.\n")
    assert again.count("# edges\n") == 1
    write_card(dataset)
    assert path.read_text() == again


@pytest.mark.parametrize("front", ["---\n[\n---\n", "---\n- a\n---\n"])
def test_a_front_matter_that_cannot_be_read_is_not_overwritten(
    dataset: Dataset, front: str
) -> None:
    path = Path(dataset.path("README.md"))
    path.write_text(front)
    with pytest.raises(DatasetError, match=r"front matter of README\.md"):
        write_card(dataset)
    assert path.read_text() == front


def test_a_card_names_nothing_that_was_taken_down(
    dataset: Dataset, load: Callable[..., Any]
) -> None:
    write_card(dataset)
    keys = keys_of(dataset)
    tombstones.bury(dataset.uri, [keys[0], keys[5]])
    with pytest.raises(DatasetError, match="compact"):
        write_card(dataset)
    compact(dataset)
    copies = [
        path.name
        for path in Path(dataset.path("subsets")).rglob("*.tar")
        if any(key.encode() in path.read_bytes() for key in (keys[0], keys[5]))
    ]
    assert copies == []
    write_card(dataset)
    assert compact(dataset).deleted == 0
    assert list(load(dataset, "6")["__key__"]) == [keys[at] for at in (1, 2, 3, 4)]
    assert list(load(dataset, "default")["__key__"]) == keys_of(dataset)
    assert verify(dataset) == []


def test_a_first_shard_without_samples_can_still_be_read(
    dataset: Dataset, load: Callable[..., Any]
) -> None:
    keys = keys_of(dataset)
    tombstones.bury(dataset.uri, keys[:4])
    compact(dataset)
    made = write_card(dataset)
    assert not {"2", "4"} & {config.name for config in made.configs}
    assert list(load(dataset, "default")["__key__"]) == keys[4:]


def test_an_empty_dataset_has_nothing_to_describe(dataset: Dataset) -> None:
    tombstones.bury(dataset.uri, keys_of(dataset))
    with pytest.raises(DatasetError, match="no sample"):
        write_card(dataset)


@pytest.mark.parametrize(
    ("samples", "category"),
    [(1, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**9, "n>1B")],
)
def test_sizes_have_the_hub_s_names(samples: int, category: str) -> None:
    assert _size(samples) == category


_READ_CROISSANT = """
import json, sys
import mlcroissant
read = mlcroissant.Dataset(jsonld=sys.argv[1])
print(json.dumps({
    "errors": list(read.metadata.ctx.issues.errors),
    "rows": [
        [row["samples/key"].decode(), row["samples/width"]] for row in read.records("samples")
    ],
    "maps": [
        [row["strong.png/key"].decode(), row["strong.png/content"].size]
        for row in read.records("strong.png")
    ],
}))
"""


def test_croissant_is_valid_and_leads_to_the_samples(dataset: Dataset, tmp_path: Path) -> None:
    """In a process of its own: the reader keeps a cache whose place it learns when imported."""
    if importlib.util.find_spec("mlcroissant") is None:
        pytest.skip("mlcroissant is not installed")
    write_card(dataset)
    done = subprocess.run(
        [sys.executable, "-c", _READ_CROISSANT, dataset.path("croissant.json")],
        env={**os.environ, "CROISSANT_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout.splitlines()[-1])
    assert read["errors"] == []
    assert read["rows"] == [[key, 64] for key in keys_of(dataset)]
    assert sorted(read["maps"]) == [[key, [64, 64]] for key in sorted(keys_of(dataset))]


def test_croissant_knows_every_shard_s_hash(dataset: Dataset) -> None:
    write_card(dataset)
    described = json.loads(storage.read_bytes(dataset.path("croissant.json")))
    files = {one["@id"]: one for one in described["distribution"] if "sha256" in one}
    assert len(files) == 4
    for path, one in files.items():
        assert storage.sha256_file(dataset.path(path)) == one["sha256"]
        assert one["contentSize"] == f"{storage.size(dataset.path(path))} B"


def test_the_command_says_what_it_wrote(
    dataset: Dataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["controlnet-factory", "card", dataset.uri])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    said = capsys.readouterr().out
    assert "copied for subsets that end inside a shard: " in said
    assert "the licence is left to you" in said


def test_a_recipe_on_a_card_names_no_folder_and_cannot_end_its_block(dataset: Dataset) -> None:
    dataset.recipe["captions"] = {"captioner": "blip", "model": "/home/me/secret/blip-base"}
    dataset.recipe["rules"]["filter"] = "caption != '```'"
    write_card(dataset)
    text = (Path(dataset.uri) / "README.md").read_text()
    assert "secret" not in text
    block = text.partition("````json\n")[2].partition("\n````")[0]
    shown = json.loads(block)
    assert shown["captions"]["model"] == "blip-base"
    assert shown["rules"] == dataset.recipe["rules"]
