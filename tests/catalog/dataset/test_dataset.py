"""Reading is verified: a sample comes back as it was committed, or not at all."""

import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from catalog import storage
from catalog.dataset import tombstones
from catalog.dataset.dataset import TO_READ, Dataset, View
from catalog.dataset.materialize import materialize
from catalog.dataset.snapshots import take_snapshot
from catalog.dataset.verify import verify
from catalog.errors import CatalogError, CorruptSampleError, DatasetError
from catalog.sample import Sample
from catalog.source.ranking import subset_ranks


def folder_of(dataset: Dataset) -> Path:
    root = storage.local_path(dataset.uri)
    assert root is not None
    return root


def test_samples_come_in_rank_order_as_they_were_written(
    dataset: Dataset, make_sample: Callable[[int], Sample]
) -> None:
    view = dataset.view()
    assert [view.read(index) for index in range(len(view))] == [make_sample(n) for n in range(10)]
    assert view.table["rank"].to_pylist() == list(range(10))
    assert view.conditions == ("canny",)


def test_a_view_travels_to_a_loader_process(dataset: Dataset) -> None:
    view = dataset.view()
    copy: View = pickle.loads(pickle.dumps(view))
    assert copy.read(3) == view.read(3)
    assert copy.fingerprint == view.fingerprint


def test_a_view_tells_its_rows_sizes_unread(dataset: Dataset) -> None:
    table = pa.table({"width": [64, 128, 64], "height": [64, 192, 64]})
    told = View("nowhere", "all", table.slice(1, 2)).row_sizes()
    assert told is not None
    assert told.tolist() == [[192, 128], [64, 64]]
    assert View("nowhere", "all", pa.table({"key": ["a"]})).row_sizes() is None
    unknown = pa.table({"width": [64, None], "height": [64, 64]})
    assert View("nowhere", "all", unknown).row_sizes() is None
    sizes, table = dataset.view().row_sizes(), dataset.view().table
    assert sizes is not None
    assert sizes[:, 0].tolist() == table["height"].to_pylist()
    assert sizes[:, 1].tolist() == table["width"].to_pylist()


def test_a_flipped_bit_is_not_read(dataset: Dataset) -> None:
    view = dataset.view()
    row = view.table.slice(5, 1).to_pylist()[0]
    shard = folder_of(dataset) / "shards" / row["shard"]
    data = bytearray(shard.read_bytes())
    data[row["offset"] + 600] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CorruptSampleError, match=f"{shard.name} at byte"):
        view.read(5)
    assert view.read(4).key
    faults = verify(dataset)
    assert len(faults) == 1
    assert shard.name in faults[0]


def test_swapped_blocks_are_not_read(dataset: Dataset) -> None:
    """Each block is whole, but lies where another's image, condition and caption should be."""
    view = dataset.view()
    one, other = view.table.slice(0, 2).to_pylist()
    assert one["length"] == other["length"]
    shard = folder_of(dataset) / "shards" / one["shard"]
    data = shard.read_bytes()
    first = data[one["offset"] : one["offset"] + one["length"]]
    second = data[other["offset"] : other["offset"] + other["length"]]
    shard.write_bytes(second + first + data[len(first + second) :])
    for index in (0, 1):
        with pytest.raises(CorruptSampleError, match="changed after the commit"):
            view.read(index)


def test_a_row_with_another_key_is_not_read(dataset: Dataset) -> None:
    view = dataset.view()
    keys = view.table["key"].to_pylist()
    at = view.table.schema.get_field_index("key")
    swapped = View(view.dataset, "all", view.table.set_column(at, "key", [keys[1:] + keys[:1]]))
    with pytest.raises(CorruptSampleError, match="the manifest says"):
        swapped.read(0)


def test_verify_names_what_is_missing(dataset: Dataset) -> None:
    root = folder_of(dataset)
    assert verify(dataset) == []
    (root / "commits" / f"{dataset.unit_ids[2]}.json").unlink()
    min((root / "shards").glob("*.tar")).unlink()
    faults = "\n".join(verify(dataset))
    assert "FileNotFoundError" in faults
    assert f"unit {dataset.unit_ids[2]} of the plan has no commit" in faults
    assert "the commits hold 7 samples, the manifest 10" in faults


@pytest.mark.parametrize(("policy", "name"), [("top", "4"), ("stratified", "4-stratified-9")])
def test_a_subset_is_a_view_of_the_manifest(dataset: Dataset, policy: Any, name: str) -> None:
    view = dataset.write_subset(4, policy=policy, seed=9)
    wanted = subset_ranks(10, 4, policy=policy, seed=9).tolist()
    assert view.table["rank"].to_pylist() == wanted
    read = dataset.view(name)
    assert read.table.equals(view.table)
    assert read.read(1) == dataset.view().read(wanted[1])
    assert dataset.subsets() == [name]


@pytest.mark.parametrize("policy", ["top", "stratified"])
def test_a_subset_is_cut_from_what_was_not_taken_down(dataset: Dataset, policy: Any) -> None:
    keys = dataset.view().table["key"].to_pylist()
    tombstones.bury(dataset.uri, [keys[0], keys[2], "0" * 32])
    assert dataset.sample_count() == 8
    view = dataset.write_subset(3, policy=policy, seed=9)
    present = dataset.view().table
    wanted = subset_ranks(8, 3, policy=policy, seed=9)
    assert view.table.equals(present.take(wanted))
    with pytest.raises(CatalogError, match="9 cannot be taken from 8"):
        dataset.write_subset(9, policy=policy, seed=9)


def test_subsets_are_listed_by_size_and_refused_beyond_the_dataset(dataset: Dataset) -> None:
    for count in (10, 2, 5):
        dataset.write_subset(count, policy="top", seed=0)
    assert dataset.subsets() == ["2", "5", "10"]
    with pytest.raises(CatalogError, match="11 cannot be taken from 10"):
        dataset.write_subset(11, policy="top", seed=0)
    with pytest.raises(DatasetError, match=r"no subset '1k'.*2, 5, 10"):
        dataset.view("1k")


def test_status_counts_committed_files_alone(dataset: Dataset) -> None:
    root = folder_of(dataset)
    for name in ("manifest.parquet", "rejects.parquet"):
        (root / name).unlink()
    (root / "commits" / f"{dataset.unit_ids[0]}.json").unlink()
    status = dataset.status()
    assert (status.units, status.units_done, status.samples) == (3, 2, 6)
    with pytest.raises(DatasetError, match="is not finished"):
        dataset.view()


def test_no_dataset_and_a_damaged_one_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no dataset at"):
        Dataset.open(str(tmp_path))
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(DatasetError, match="is damaged"):
        Dataset.open(str(tmp_path))


def test_materialize_copies_every_sample_once_in_order(
    dataset: Dataset, make_sample: Callable[[int], Sample], tmp_path: Path
) -> None:
    view = dataset.view()
    assert list(materialize(view, tmp_path / "t", samples_per_tar=4)) == [4, 8, 10]
    names = []
    for path in sorted((tmp_path / "t").iterdir()):
        with tarfile.open(path) as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None
                names.append((path.name, member.name, content.read()))
    images = [data for _, name, data in names if name.count(".") == 1 and name.endswith("png")]
    assert images == [make_sample(number).image for number in range(10)]
    assert {name for name, _, _ in names} == {"000000.tar", "000001.tar", "000002.tar"}
    with pytest.raises(CatalogError, match="not empty"):
        next(materialize(view, tmp_path / "t"))


def test_materialize_stops_at_a_corrupt_sample(dataset: Dataset, tmp_path: Path) -> None:
    shard = max((folder_of(dataset) / "shards").glob("*.tar"))
    data = shard.read_bytes()
    shard.write_bytes(data[:700] + bytes([data[700] ^ 1]) + data[701:])
    with pytest.raises(CorruptSampleError):
        list(materialize(dataset.view(), tmp_path / "t"))
    assert list((tmp_path / "t").glob("*.tar")) == []


def test_the_tar_of_a_unit_is_one_plain_archive(dataset: Dataset) -> None:
    shard = min((folder_of(dataset) / "shards").glob("*.tar"))
    with tarfile.open(fileobj=io.BytesIO(shard.read_bytes())) as tar:
        keys = [name.partition(".")[0] for name in tar.getnames()]
    assert keys == [key for key in dict.fromkeys(keys) for _ in range(4)]


@pytest.mark.parametrize("snapshot", [None, "then"])
def test_a_view_to_read_holds_no_texts(dataset: Dataset, snapshot: str | None) -> None:
    dataset.write_subset(4, policy="top", seed=0)
    take_snapshot(dataset, "then")
    gone = dataset.view().keys()[1]
    tombstones.bury(dataset.uri, [gone])
    for subset in (None, "4"):
        whole = dataset.view(subset, snapshot)
        lean = dataset.view(subset, snapshot, columns=TO_READ)
        assert set(lean.table.column_names) == set(TO_READ)
        assert (lean.fingerprint, lean.keys()) == (whole.fingerprint, whole.keys())
        assert gone not in set(lean.keys())
        assert [lean.read(at) for at in range(len(lean))] == [
            whole.read(at) for at in range(len(whole))
        ]
