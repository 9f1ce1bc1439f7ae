"""A snapshot is what the dataset was when it was taken, but for what is taken down since."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from catalog import storage, tables
from catalog.dataset import busy, snapshots, tombstones
from catalog.dataset import dataset as layout
from catalog.dataset.compact import compact
from catalog.dataset.dataset import Dataset
from catalog.dataset.snapshots import Snapshot, choose_old, drop_snapshot, take_snapshot
from catalog.dataset.verify import verify
from catalog.errors import DatasetError


def named(name: str, day: int) -> Snapshot:
    """A snapshot that was taken on a day of May 2024."""
    taken = datetime(2024, 5, day, tzinfo=UTC).isoformat()
    return Snapshot(
        name=name,
        generation=0,
        source="source.parquet",
        folded="",
        images=0,
        samples=0,
        rejects={},
        view="",
        taken=taken,
    )


def test_a_snapshot_is_the_dataset_of_then(dataset: Dataset) -> None:
    made = take_snapshot(dataset, "night-1")
    assert (made.name, made.generation, made.source) == ("night-1", 0, "source.parquet")
    assert (made.images, made.samples, made.rejects) == (10, 10, {})
    assert dataset.snapshots() == ["night-1"]
    view = dataset.view(snapshot="night-1")
    assert made.view == view.fingerprint == dataset.view().fingerprint
    assert view.name == "night-1"
    assert view.table.equals(dataset.view().table.replace_schema_metadata(None))
    assert dataset.rejects("night-1").num_rows == 0
    assert verify(dataset) == []


def test_the_same_again_is_no_harm_and_another_content_is_refused(dataset: Dataset) -> None:
    made = take_snapshot(dataset, "a")
    assert take_snapshot(dataset, "a") == made
    record = dataset.path("snapshots", "a", "snapshot.json")
    text = storage.read_bytes(record)
    storage.write_atomic(record, text.replace(made.folded.encode(), b"0" * 64))
    with pytest.raises(DatasetError, match=r"holds something else: .* take another name"):
        take_snapshot(dataset, "a")
    assert take_snapshot(dataset, "b").view == made.view


def test_without_its_json_there_is_none(dataset: Dataset) -> None:
    take_snapshot(dataset, "a")
    storage.remove(dataset.path("snapshots", "a", "snapshot.json"))
    assert dataset.snapshots() == []
    with pytest.raises(DatasetError, match=r"no snapshot 'a' .*there is: none yet"):
        dataset.view(snapshot="a")
    take_snapshot(dataset, "a")
    assert dataset.snapshots() == ["a"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", "a b", "é", "a" * 101, "x\n"])
def test_what_is_no_name_is_refused(dataset: Dataset, name: str) -> None:
    with pytest.raises(DatasetError, match="is no name of a snapshot"):
        take_snapshot(dataset, name)
    with pytest.raises(DatasetError, match="no snapshot"):
        dataset.view(snapshot=name)


@pytest.mark.parametrize("name", ["all", "1k", "20240501", "10k-stratified-7"])
def test_a_name_that_could_be_a_subset_is_refused(dataset: Dataset, name: str) -> None:
    with pytest.raises(DatasetError, match="would be read as a subset"):
        take_snapshot(dataset, name)


def test_subsets_are_cut_of_what_was_there(dataset: Dataset) -> None:
    top = dataset.write_subset(4, policy="top", seed=0)
    drawn = dataset.write_subset(5, policy="stratified", seed=3)
    take_snapshot(dataset, "a")
    for name in dataset.subsets():
        storage.remove(dataset.path("subsets", f"{name}.parquet"))
    assert dataset.view("4", "a").fingerprint == top.fingerprint
    assert dataset.view("4", "a").name == "a/4"
    assert dataset.view("5-stratified-3", "a").fingerprint == drawn.fingerprint
    for name, why in (("11", "cannot be taken from 10"), ("few", "is not a number of samples")):
        with pytest.raises(DatasetError, match=f"no subset '{name}' of snapshot a .*{why}"):
            dataset.view(name, "a")


def test_a_takedown_reaches_it_at_once_and_its_bytes_by_compact(dataset: Dataset) -> None:
    early = dataset.view().keys()[0]
    tombstones.bury(dataset.uri, [early])
    made = take_snapshot(dataset, "a")
    keys = dataset.view().keys()
    tombstones.bury(dataset.uri, [keys[1]])
    left = [keys[0], *keys[2:]]
    assert made.samples == 9
    assert dataset.view(snapshot="a").keys() == left
    assert dataset.view("3", "a").keys() == [keys[0], keys[2]]
    shown = dataset.view(snapshot="a").fingerprint
    compact(dataset)
    kept = tables.read_table(dataset.path(snapshots.manifest_of("a")))["key"].to_pylist()
    assert kept == left
    assert early not in kept
    opened = Dataset.open(dataset.uri)
    view = opened.view(snapshot="a")
    assert view.fingerprint == shown
    assert [view.read(at).key for at in range(len(view))] == left
    assert opened.view("3", "a").keys() == [keys[0], keys[2]]
    assert verify(opened) == []
    assert take_snapshot(opened, "a") == made


def test_a_takedown_reaches_its_rejects(dataset: Dataset) -> None:
    rows = [
        {"sha256": letter * 64, "status": "rejected:blur", "value": 1.0, "detail": f"of {letter}"}
        for letter in "ab"
    ]
    uri = dataset.path(layout.REJECTS)
    rejects = pa.Table.from_pylist(rows, schema=tables.REJECTS)
    storage.write_atomic(uri, tables.to_parquet(rejects, tables.read_metadata(uri)))
    assert take_snapshot(dataset, "a").rejects == {"rejected:blur": 2}
    tombstones.bury(dataset.uri, ["a" * 32])
    assert dataset.rejects("a")["detail"].to_pylist() == ["of b"]
    compact(dataset)
    kept = snapshots.read_rejects(dataset.uri, "a").select(["status", "value", "detail"])
    assert kept.to_pylist() == [
        {"status": "removed", "value": None, "detail": None},
        {"status": "rejected:blur", "value": 1.0, "detail": "of b"},
    ]


def test_while_a_compaction_stands_none_is_taken(dataset: Dataset) -> None:
    with (
        busy.marked(dataset.uri, busy.COMPACT),
        pytest.raises(DatasetError, match="a compaction runs or did not end"),
    ):
        take_snapshot(dataset, "a")
    assert dataset.snapshots() == []


@pytest.mark.usefixtures("on_disk")
def test_verify_finds_rows_that_lie_elsewhere_or_are_missing(dataset: Dataset) -> None:
    take_snapshot(dataset, "a")
    uri = dataset.path(snapshots.manifest_of("a"))
    table = tables.read_table(uri)
    storage.write_atomic(uri, tables.to_parquet(table.slice(1)))
    assert verify(dataset) == [
        "snapshots/a/manifest.parquet has 9 samples of 10, and 0 were taken down since"
    ]
    at = table.schema.get_field_index("shard")
    moved = table.set_column(at, "shard", table["shard"].take([9] * 10))
    storage.write_atomic(uri, tables.to_parquet(moved))
    (fault,) = verify(dataset)
    assert fault.startswith(
        "snapshots/a/manifest.parquet: 7 of 10 samples do not lie where it says"
    )
    storage.write_atomic(uri, b"PAR1")
    (fault,) = verify(dataset)
    assert fault.startswith("snapshots/a/manifest.parquet cannot be read")


def test_retention_is_by_count_and_age() -> None:
    found = [named(name, day) for name, day in (("a", 1), ("b", 2), ("c", 3), ("d", 4))]
    now = datetime(2024, 5, 5, tzinfo=UTC)

    def names(keep: int, days: float = 0, protect: tuple[str, ...] = ()) -> list[str]:
        age = timedelta(days=days)
        old = choose_old(found, keep=keep, older_than=age, protect=protect, now=now)
        return [one.name for one in old]

    assert names(2) == ["a", "b"]
    assert names(0, days=3) == ["a", "b"]
    assert names(9) == []
    assert names(1, protect=("b",)) == ["a", "c"]
    with pytest.raises(DatasetError, match="no snapshot 'x' to protect"):
        names(1, protect=("x",))


def test_on_object_storage(
    s3: str, tmp_path: Path, make_dataset: Callable[[str, Path, list[list[int]]], Dataset]
) -> None:
    dataset = make_dataset(f"{s3}/d", tmp_path / "scratch", [[0, 1, 2], [3, 4]])
    made = [take_snapshot(dataset, name) for name in ("b:1", "a")]
    assert dataset.snapshots() == ["b:1", "a"]
    assert take_snapshot(dataset, "a") == made[1]
    tombstones.bury(dataset.uri, dataset.view().keys()[:1])
    compact(dataset)
    opened = Dataset.open(dataset.uri)
    view = opened.view(snapshot="a")
    assert [view.read(at).key for at in range(len(view))] == opened.view().keys()
    assert verify(opened) == []
    drop_snapshot(dataset.uri, "b:1")
    assert opened.snapshots() == ["a"]
    assert storage.list_names(dataset.path("snapshots")) == ["a"]


def test_a_dropped_one_is_gone(dataset: Dataset) -> None:
    take_snapshot(dataset, "a")
    take_snapshot(dataset, "b")
    assert dataset.snapshots() == ["a", "b"]
    drop_snapshot(dataset.uri, "a")
    assert dataset.snapshots() == ["b"]
    assert storage.list_names(dataset.path("snapshots")) == ["b"]
