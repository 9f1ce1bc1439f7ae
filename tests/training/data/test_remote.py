"""Training data in a bucket: read side by side, and only once where there is a cache."""

import threading
import time
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from catalog import storage, tables
from catalog.dataset.dataset import MANIFEST, RECIPE, Dataset
from catalog.dataset.shards import ShardWriter
from catalog.errors import StorageError
from tests.training.damaged import SilentView
from training.data.examples import THREADS, Examples
from training.data.loader import IndexBatches, load_batches

SHARD = "000000-0123abcd.tar"
ROWS = 8


@pytest.fixture(scope="module")
def local(view_type, tmp_path_factory) -> Path:
    """A dataset of one shard."""
    folder, view, rows = tmp_path_factory.mktemp("local"), view_type(rows=ROWS), []
    (folder / "shards").mkdir()
    with (folder / "shards" / SHARD).open("wb") as file:
        writer = ShardWriter(file)
        for rank in range(ROWS):
            block = writer.add(view.read(rank))
            place = {"offset": block.offset, "length": block.length, "block_sha256": block.sha256}
            rows.append({"rank": rank, "shard": SHARD, "key": view.keys()[rank], **place})
        writer.close()
    manifest = pa.Table.from_pylist(rows, schema=tables.MANIFEST)
    (folder / MANIFEST).write_bytes(tables.to_parquet(manifest))
    (folder / RECIPE).write_text('{"recipe": {}, "fingerprint": "5eed"}')
    return folder


@pytest.fixture
def remote(s3, local) -> str:
    uri = f"{s3}/{uuid.uuid4().hex}"
    for name in (MANIFEST, RECIPE, f"shards/{SHARD}"):
        storage.write_atomic(f"{uri}/{name}", (local / name).read_bytes())
    return uri


def epoch(view, number: int, *, workers: int = 0):
    examples = Examples(view, "canny", seed=7, prompt_dropout=0.5, multiple=8, step=4)
    indices = IndexBatches(start=number * ROWS, stop=(number + 1) * ROWS, batch_size=4)
    return list(load_batches(examples, indices, workers=workers))


def assert_same(one, other) -> None:
    for left, right in zip(one, other, strict=True):
        assert (left.indices, left.keys, left.captions) == (
            right.indices,
            right.keys,
            right.captions,
        )
        assert torch.equal(left.images, right.images)
        assert torch.equal(left.hints, right.hints)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_second_epoch_reads_nothing_remote(local, remote, tmp_path, workers):
    here = Dataset.open(str(local)).view()
    there = Dataset.open(remote).view().cached(str(tmp_path / "cache"))
    assert_same(epoch(there, 0, workers=workers), epoch(here, 0))
    storage.remove(f"{remote}/shards/{SHARD}")
    assert not storage.exists(f"{remote}/shards/{SHARD}")
    assert_same(epoch(there, 1, workers=workers), epoch(here, 1))


def test_each_sample_is_fetched_once(remote, tmp_path, monkeypatch):
    view, fetched = Dataset.open(remote).view().cached(str(tmp_path / "cache")), []
    read_bytes = storage.read_bytes

    def counting(uri: str, *place: int) -> bytes:
        fetched.append(place)
        return read_bytes(uri, *place)

    monkeypatch.setattr(storage, "read_bytes", counting)
    for number in range(3):
        epoch(view, number)
    assert len(fetched) == len(set(fetched)) == ROWS


def test_what_a_crash_left_of_a_cached_sample_is_fetched_again(local, remote, tmp_path):
    view = Dataset.open(remote).view().cached(str(tmp_path / "cache"))
    epoch(view, 0)
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(kept) == ROWS
    for place, path in enumerate(kept):
        path.write_bytes(path.read_bytes()[: place * 100])
    assert_same(epoch(view, 1), epoch(Dataset.open(str(local)).view(), 1))


def test_a_cache_that_cannot_be_written_to_is_told_and_left_out(remote, tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    view = Dataset.open(remote).view().cached(str(tmp_path / "file"))
    assert len(epoch(view, 0)) == 2
    assert [one.message for one in caplog.records if "read on without it" in one.message]


def test_a_local_dataset_needs_no_cache_and_a_remote_cache_is_refused(local, remote, tmp_path):
    view = Dataset.open(str(local)).view()
    assert view.cached(str(tmp_path / "cache")) is view
    with pytest.raises(StorageError, match="must be on a local disk, got 's3://else'"):
        Dataset.open(remote).view().cached("s3://else")


def test_samples_of_a_batch_are_read_at_the_same_time(view_type, monkeypatch):
    together = threading.Barrier(THREADS)

    class Slow(SilentView):
        remote = True

        def read(self, index: int):
            together.wait(timeout=30)
            time.sleep(0.01 * (index % 3))  # they end in another order
            return view_type.read(self, index)

    examples = Examples(Slow(rows=THREADS), "canny", seed=7, prompt_dropout=0, multiple=8)
    monkeypatch.setattr(Slow, "conditions", ("canny",), raising=False)
    read = examples.read_all(range(THREADS))
    assert [one.index for one in read] == list(range(THREADS))
    rows = [examples.order.row_of(index) for index in range(THREADS)]
    np.testing.assert_array_equal([int(one.key, 16) for one in read], rows)
