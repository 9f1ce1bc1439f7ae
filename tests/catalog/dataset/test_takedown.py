"""What was taken down is in no view from then on, and after compaction in no file either."""

import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog import storage, tables
from catalog.dataset import commits, tombstones
from catalog.dataset import dataset as layout
from catalog.dataset.commits import Attempt, commit_unit
from catalog.dataset.compact import compact
from catalog.dataset.dataset import Dataset
from catalog.dataset.verify import verify
from catalog.errors import CorruptSampleError, DatasetError
from catalog.sample import OK, REMOVED, Sample

Make = Callable[[str, Path, list[list[int]]], Dataset]


def keys_of(dataset: Dataset, subset: str | None = None) -> list[str]:
    return list(dataset.view(subset).table["key"].to_pylist())


def members_of(dataset: Dataset) -> set[str]:
    """Return the keys that a plain reader of the tars finds."""
    found = set()
    for name in storage.list_names(dataset.path("shards")):
        if name.endswith(".tar"):
            with tarfile.open(Path(dataset.path("shards", name))) as tar:
                found |= {member.partition(".")[0] for member in tar.getnames()}
    return found


def test_a_removal_holds_at_once_everywhere(dataset: Dataset) -> None:
    dataset.write_subset(4, policy="top", seed=0)
    keys = keys_of(dataset)
    before = dataset.view().fingerprint
    assert tombstones.bury(dataset.uri, keys[1:3])
    assert keys_of(dataset) == keys[:1] + keys[3:]
    assert keys_of(dataset, "4") == [keys[0], keys[3]]
    assert keys_of(Dataset.open(dataset.uri)) == keys_of(dataset)
    assert dataset.view().fingerprint != before
    assert dataset.status().samples == 8
    assert dataset.status().rejects == {REMOVED: 2}
    assert len(dataset.write_subset(8, policy="top", seed=0)) == 8
    assert verify(dataset) == []


def test_a_removal_holds_in_a_view_of_some_columns(dataset: Dataset) -> None:
    whole = dataset.view()
    tombstones.bury(dataset.uri, whole.keys()[:1])
    assert (
        dataset.view(columns=["sha256"]).table["sha256"].to_pylist()
        == (whole.table["sha256"].to_pylist()[1:])
    )


def test_the_same_removal_again_changes_nothing(dataset: Dataset) -> None:
    key, other = keys_of(dataset)[:2]
    assert tombstones.bury(dataset.uri, [other, key])
    assert not tombstones.bury(dataset.uri, [key, other])
    assert len(storage.list_names(dataset.path("tombstones"))) == 1
    assert tombstones.bury(dataset.uri, [key])
    assert tombstones.removed_keys(dataset.uri) == {key, other}


def test_keys_and_hashes_are_read_a_line_each() -> None:
    assert tombstones.parse_keys(f"{'a' * 32}\n\n  {'B' * 64} \r\n") == {"a" * 32, "b" * 32}
    assert tombstones.parse_keys("") == set()


@pytest.mark.parametrize("line", ["a" * 31, "a" * 40, "g" * 32, "../../etc/passwd", "a" * 32 + ","])
def test_a_line_that_is_no_key_is_refused(line: str) -> None:
    with pytest.raises(DatasetError, match=r"line 2: .*is no key"):
        tombstones.parse_keys(f"{'a' * 32}\n{line}\n")


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"names": []}'])
def test_damaged_tombstones_show_nothing_rather_than_too_much(
    dataset: Dataset, text: bytes
) -> None:
    storage.write_atomic(dataset.path("tombstones", "x.json"), text)
    with pytest.raises(DatasetError, match="no list of removed keys"):
        dataset.view()


def test_rejected_images_can_be_taken_down_too(dataset: Dataset) -> None:
    rows = [{"sha256": "c" * 64, "status": "rejected:x"}, {"status": "failed:OSError"}]
    rejects = pa.Table.from_pylist(rows, schema=tables.REJECTS)
    storage.write_atomic(dataset.path(layout.REJECTS), tables.to_parquet(rejects))
    tombstones.bury(dataset.uri, ["c" * 32])
    assert dataset.rejects()["status"].to_pylist() == ["failed:OSError"]


def test_compaction_leaves_no_byte_and_no_text(
    dataset: Dataset, make_sample: Callable[[int], Sample]
) -> None:
    dataset.write_subset(4, policy="top", seed=0)
    lost = [{"sha256": "0" * 64, "caption": "stays"}, {"sha256": "1" * 64, "caption": "goes"}]
    lost = [{**row, "status": "rejected:x"} for row in lost]
    planned = tables.read_table(dataset.path(layout.SOURCE)).replace_schema_metadata(None)
    whole = pa.concat_tables([planned, pa.Table.from_pylist(lost, schema=tables.SOURCE)])
    storage.write_atomic(dataset.path(layout.SOURCE), tables.to_parquet(whole, {"kept": [1]}))
    keys = keys_of(dataset)
    untouched = commits.read_commits(dataset.uri)[2]
    tombstones.bury(dataset.uri, [keys[0], keys[4], "1" * 32])
    done = compact(dataset)
    assert (done.units, done.deleted) == (2, 4)
    left = [keys[at] for at in (1, 2, 3, 5, 6, 7, 8, 9)]
    assert keys_of(dataset) == left
    assert members_of(dataset) == set(left)
    assert tables.read_table(dataset.path(layout.MANIFEST))["key"].to_pylist() == left
    assert tables.read_table(dataset.path("subsets", "4.parquet"))["key"].to_pylist() == keys[1:4]
    numbers = [1, 2, 3, 5, 6, 7, 8, 9]
    samples = [dataset.view().read(at) for at in range(len(left))]
    assert samples == [make_sample(number) for number in numbers]
    texts = tables.read_table(dataset.path(layout.SOURCE))["caption"].to_pylist()
    assert texts[10:] == ["stays", None]
    assert tables.read_metadata(dataset.path(layout.SOURCE)) == {"kept": [1]}
    assert commits.read_commits(dataset.uri)[2] == untouched
    assert dataset.status().rejects == {
        REMOVED: 3,
        "rejected:x": 1,
    }  # with the one that is in no unit
    assert not dataset.finalize()
    assert verify(dataset) == []


def test_an_open_view_finds_what_compactions_moved(dataset: Dataset) -> None:
    view = dataset.view()
    keys = view.keys()
    samples = [view.read(index) for index in range(len(keys))]
    for gone in ([0, 3], [1]):
        tombstones.bury(dataset.uri, [keys[index] for index in gone])
        assert compact(dataset).units
        again = pickle.loads(pickle.dumps(view))
        left = tombstones.removed_keys(dataset.uri)
        for index, key in enumerate(keys):
            for reader in (view, again):
                if key in left:
                    with pytest.raises(CorruptSampleError, match="deleted by a compaction"):
                        reader.read(index)
                else:
                    assert reader.read(index) == samples[index]


def test_a_view_whose_storage_went_away_says_so(dataset: Dataset, tmp_path: Path) -> None:
    view = dataset.view()
    Path(dataset.uri).rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="shards"):
        view.read(0)


def test_a_removed_image_keeps_a_row_without_content(dataset: Dataset) -> None:
    key = keys_of(dataset)[0]
    tombstones.bury(dataset.uri, [key])
    compact(dataset)
    commit = commits.read_commits(dataset.uri)[0]
    assert commit.counts == {OK: 3, REMOVED: 1}
    row = tables.read_table(dataset.path("shards", commit.rows.name)).to_pylist()[0]
    assert {name for name, value in row.items() if value is not None} == {"key", "sha256", "status"}


def test_a_unit_can_lose_all_its_samples(dataset: Dataset) -> None:
    tombstones.bury(dataset.uri, keys_of(dataset)[4:7])
    compact(dataset)
    assert len(keys_of(dataset)) == 7
    assert verify(dataset) == []


def test_compacting_twice_does_it_once(dataset: Dataset) -> None:
    assert compact(dataset).units == 0
    tombstones.bury(dataset.uri, keys_of(dataset)[:1])
    assert compact(dataset).units == 1
    names = storage.list_names(dataset.path("shards"))
    again = compact(dataset)
    assert (again.units, again.deleted) == (0, 0)
    assert storage.list_names(dataset.path("shards")) == names


def test_a_damaged_sample_stops_compaction_and_nothing_is_lost(dataset: Dataset) -> None:
    row = dataset.view().table.slice(1, 1).to_pylist()[0]
    shard = Path(dataset.path("shards", row["shard"]))
    data = bytearray(shard.read_bytes())
    data[row["offset"] + 600] ^= 1
    shard.write_bytes(data)
    tombstones.bury(dataset.uri, keys_of(dataset)[:1])
    with pytest.raises(CorruptSampleError, match="run verify"):
        compact(dataset)
    assert shard.exists()


def test_an_unfinished_build_is_not_compacted(dataset: Dataset) -> None:
    tombstones.bury(dataset.uri, keys_of(dataset)[:1])
    commit = commits.read_commits(dataset.uri)[2]
    Path(dataset.path("commits", f"{commit.unit_id}.json")).unlink()
    with pytest.raises(DatasetError, match="finish the build"):
        compact(dataset)


def test_a_late_attempt_does_not_bring_a_removed_sample_back(
    dataset: Dataset, make_attempt: Callable[..., Attempt], tmp_path: Path
) -> None:
    key = keys_of(dataset)[0]
    tombstones.bury(dataset.uri, [key])
    compact(dataset)
    late = make_attempt(tmp_path / "late", [0, 1, 2, 3])
    commit, outcome = commit_unit(dataset.uri, late)
    assert outcome == "same"
    assert commit.counts == {OK: 3, REMOVED: 1}
    assert key not in members_of(dataset)


class Killed(BaseException):
    """Stands for a process that ends there and then."""


WRITES = ("write_atomic", "publish", "remove", "sync_file")


@pytest.mark.parametrize("after", range(24))  # all the writes that it takes
def test_killed_anywhere_compaction_goes_on_to_the_same_bytes(
    after: int, make_dataset: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]
    killed, whole = (
        make_dataset(str(tmp_path / name), tmp_path / f"{name}-scratch", units)
        for name in ("killed", "whole")
    )
    keys = keys_of(whole)
    for one in (killed, whole):
        one.write_subset(4, policy="top", seed=0)
        tombstones.bury(one.uri, [keys[0], keys[5]])
    left = keys_of(whole)
    compact(whole)
    calls = 0

    def count_down(real: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object) -> None:
            nonlocal calls
            calls += 1
            if calls > after:
                raise Killed
            real(*arguments)

        return call

    with monkeypatch.context() as patch:
        for name in WRITES:
            patch.setattr(storage, name, count_down(getattr(storage, name)))
        try:
            compact(killed)
        except Killed:
            pass
        else:
            pytest.skip("there are fewer writes")
    opened = Dataset.open(killed.uri)
    assert keys_of(opened) == left
    assert [opened.view().read(at).key for at in range(len(left))] == left
    assert [opened.view("4").read(at).key for at in range(3)] == left[:3]
    assert all("no commit" in fault or "compaction" in fault for fault in verify(opened))
    compact(opened)
    assert files_of(killed) == files_of(whole)


def files_of(dataset: Dataset) -> dict[str, bytes]:
    root = Path(dataset.uri)
    paths = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


@settings(max_examples=15)
@given(gone=st.lists(st.sets(st.integers(0, 9), max_size=9), max_size=3))
def test_whatever_is_removed_in_any_steps_the_rest_stays(
    gone: list[set[int]], make_dataset: Make, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("steps")
    made = make_dataset(str(folder / "d"), folder / "s", [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]])
    keys = keys_of(made)
    for step in gone:
        tombstones.bury(made.uri, [keys[at] for at in step])
        compact(made)
    left = [key for at, key in enumerate(keys) if not any(at in step for step in gone)]
    assert keys_of(made) == left
    assert members_of(made) == set(left)
    assert verify(made) == []


def test_compaction_deletes_only_what_is_the_factorys(dataset: Dataset) -> None:
    dataset.write_subset(4, policy="top", seed=0)
    mine = ["shards/notes.txt", "shards/mine.tar", "shards/more/000000-01234567.tar"]
    mine.append("subsets/4/notes.txt")
    for name in mine:
        storage.write_atomic(dataset.path(name), b"mine")
    tombstones.bury(dataset.uri, keys_of(dataset)[:1])
    assert compact(dataset).deleted == 2
    assert all(storage.exists(dataset.path(name)) for name in mine)


def test_takedown_works_on_object_storage(s3: str, make_dataset: Make, tmp_path: Path) -> None:
    made = make_dataset(f"{s3}/d", tmp_path / "s", [[0, 1, 2], [3, 4]])
    keys = keys_of(made)
    tombstones.bury(made.uri, keys[:1])
    assert not tombstones.bury(made.uri, keys[:1])
    assert keys_of(made) == keys[1:]
    assert compact(made).units == 1
    assert [made.view().read(at).key for at in range(4)] == keys[1:]
    assert len(storage.list_names(made.path("shards"))) == 4
    assert verify(made) == []
    listed = json.loads(
        storage.read_bytes(made.path("tombstones", storage.list_names(made.path("tombstones"))[0]))
    )
    assert listed == {"keys": keys[:1]}
