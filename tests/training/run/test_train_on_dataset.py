"""Training on a dataset as the catalog stores it, through `train`, as the command line calls it."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from catalog import tables
from catalog.dataset.dataset import MANIFEST, RECIPE, SUBSETS, TO_READ, Dataset
from catalog.dataset.shards import ShardWriter
from catalog.errors import CatalogError, CorruptSampleError
from training.data import reading
from training.errors import DataError, DataUnavailable, ResumeMismatch
from training.run.checkpoint import WEIGHTS
from training.run.loop import train

SHARD = "000000-0123abcd.tar"


@pytest.fixture
def dataset(tmp_path, view_type) -> Dataset:
    """Four samples in one shard, and the subset of the first two."""
    folder, view, rows = tmp_path / "dataset", view_type(rows=4), []
    (folder / "shards").mkdir(parents=True)
    with (folder / "shards" / SHARD).open("wb") as file:
        writer = ShardWriter(file)
        for rank in range(len(view)):
            sample = view.read(rank)
            block = writer.add(sample)
            rows.append(
                {
                    "rank": rank,
                    "shard": SHARD,
                    "key": sample.key,
                    "offset": block.offset,
                    "length": block.length,
                    "block_sha256": block.sha256,
                }
            )
        writer.close()
    manifest = pa.Table.from_pylist(rows, schema=tables.MANIFEST)
    (folder / MANIFEST).write_bytes(tables.to_parquet(manifest))
    (folder / RECIPE).write_text(json.dumps({"recipe": {}, "fingerprint": "5eed"}))
    opened = Dataset.open(str(folder))
    opened.write_subset(2, policy="top", seed=0)
    return opened


def ignore(_report) -> None:
    pass


@pytest.mark.parametrize("workers", [0, 2])
def test_a_subset_trains(dataset, make_config, workers):
    config = make_config(dataset=dataset.uri, subset="2", steps=2, num_workers=workers)
    summary = train(config, ignore)
    assert (summary.steps, summary.steps_done) == (2, 2)
    assert Path(config.out, WEIGHTS).is_file()
    identity = json.loads(Path(config.out, "train.json").read_bytes())["identity"]
    assert identity["dataset"] == "5eed"
    assert identity["view"] == dataset.view("2").fingerprint


@pytest.mark.parametrize("subset", [None, "2"])
@pytest.mark.parametrize("lacks", [[], ["width", "height"]])
def test_only_the_columns_that_find_samples_are_read(
    dataset, make_config, monkeypatch, subset, lacks
):
    """Captions and parameters, most of a manifest, lie in the shards too; old ones lack sizes."""
    for name in (MANIFEST, f"{SUBSETS}/2.parquet"):
        whole = tables.read_table(dataset.path(name))
        Path(dataset.path(name)).write_bytes(tables.to_parquet(whole.drop_columns(lacks)))
    read, read_table = {}, tables.read_table

    def noting(uri, columns=None):
        read[Path(uri).name] = table = read_table(uri, columns)
        return table

    monkeypatch.setattr(tables, "read_table", noting)
    train(make_config(dataset=dataset.uri, subset=subset, steps=1), ignore)
    assert set(read) == {MANIFEST} | ({"2.parquet"} if subset else set())
    for table in read.values():
        assert set(table.column_names) == set(TO_READ) - set(lacks)


def test_another_subset_does_not_resume(dataset, make_config):
    train(make_config(dataset=dataset.uri, subset="2", steps=1), ignore)
    with pytest.raises(ResumeMismatch, match="view: "):
        train(make_config(dataset=dataset.uri, steps=1), ignore)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("picture", [b"picture 0", b"picture 2"])
def test_a_damaged_sample_is_passed_over(dataset, make_config, picture, workers):
    shard = Path(dataset.uri, "shards", SHARD)
    shard.write_bytes(shard.read_bytes().replace(picture, b"forgery !"))
    summary = train(make_config(dataset=dataset.uri, num_workers=workers), ignore)
    assert (summary.steps_done, summary.damaged) == (4, 1)
    (line,) = Path(summary.folder, "damaged.jsonl").read_text().splitlines()
    damaged = json.loads(line)
    assert damaged["key"] == dataset.view().keys()[damaged["row"]]
    assert "changed after the commit" in damaged["error"]


def test_a_shard_that_is_missing_is_no_damage(dataset, monkeypatch):
    monkeypatch.setattr(reading, "PAUSES", (0.0,))
    view = dataset.view()
    Path(dataset.uri, "shards", SHARD).rename(Path(dataset.uri, "elsewhere"))
    reader = reading.Reader(view, "canny", multiple=8)
    with pytest.raises(DataUnavailable, match=rf"tried 2 times .*{SHARD}"):
        reader.read(0)


def test_a_shard_damaged_all_over_ends_the_run(dataset, make_config):
    shard = Path(dataset.uri, "shards", SHARD)
    shard.write_bytes(shard.read_bytes().replace(b"picture", b"forgery"))
    with pytest.raises(CorruptSampleError, match="changed after the commit"):
        train(make_config(dataset=dataset.uri, steps=1), ignore)


def test_a_missing_subset_dataset_or_condition_is_named(dataset, make_config, tmp_path):
    with pytest.raises(CatalogError, match=r"no subset '1k' .*there is: 2"):
        train(make_config(dataset=dataset.uri, subset="1k"), ignore)
    with pytest.raises(CatalogError, match="no dataset at"):
        train(make_config(dataset=str(tmp_path / "nowhere")), ignore)
    with pytest.raises(DataError, match="no condition 'depth'; it has: canny"):
        train(make_config(dataset=dataset.uri, condition="depth"), ignore)
    assert not (tmp_path / "run").exists()
