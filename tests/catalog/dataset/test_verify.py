"""Every table of a dataset is verified, and every byte read once."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pytest

from catalog import storage, tables
from catalog.dataset import tombstones
from catalog.dataset.dataset import Dataset
from catalog.dataset.verify import verify

Change = Callable[[pa.Table], pa.Table]


def rewrite(dataset: Dataset, name: str, change: Change) -> None:
    """Change a table of a dataset; its row groups and its metadata stay."""
    uri = dataset.path(name)
    with tables.open_parquet(uri) as file:
        sizes = [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)]
    table = change(tables.read_table(uri))
    groups, start = [], 0
    for size in sizes:
        groups.append(table.slice(start, size))
        start += size
    tables.write_parquet(uri, table.schema, groups, tables.read_metadata(uri))


def with_value(name: str, value: object, at: int = 0) -> Change:
    """Return a change of one value of a column."""

    def change(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        values[at] = value
        column = pa.array(values, table.schema.field(name).type)
        return table.set_column(table.schema.get_field_index(name), name, column)

    return change


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("plan.parquet", with_value("sha256", "0" * 64), "holds other images than its id says"),
        ("plan.parquet", with_value("caption", "another"), "differ in the column caption"),
        ("source.parquet", with_value("uri", "elsewhere"), "differ in the column uri"),
        ("source.parquet", with_value("status", "rejected:blur"), "planned and rejected"),
        ("source.parquet", with_value("rank", None), "differ in the column"),
        ("rejects.parquet", with_value("status", "ok"), "is not what source.parquet and the units"),
        ("rejects.parquet", lambda table: table.slice(1), "is not what source.parquet"),
        ("manifest.parquet", with_value("offset", 512), "manifest.parquet and the rows of"),
        ("manifest.parquet", with_value("shard", "000009-00000000.tar"), "that no commit names"),
        ("subsets/4.parquet", with_value("shard", "000009-00000000.tar"), "1 of 4 samples do not"),
        ("subsets/4.parquet", with_value("offset", 512), "1 of 4 samples do not lie where"),
        ("subsets/4.parquet", with_value("key", "0" * 32, 2), f"first: {'0' * 32}"),
    ],
)
def test_a_table_that_says_something_else_is_told(
    dataset: Dataset, name: str, change: Change, told: str
) -> None:
    dataset.write_subset(4, policy="top", seed=0)
    lost = {"sha256": "e" * 64, "status": "rejected:blur", "uri": "there"}
    uri = dataset.path("source.parquet")
    extra = pa.Table.from_pylist([lost], schema=tables.SOURCE)
    whole = pa.concat_tables([tables.read_table(uri).replace_schema_metadata(None), extra])
    storage.write_atomic(uri, tables.to_parquet(whole))
    dataset.fold()
    assert verify(dataset) == []
    rewrite(dataset, name, change)
    assert any(told in fault for fault in verify(dataset)), verify(dataset)


@pytest.mark.parametrize(
    "name", ["plan.parquet", "source.parquet", "rejects.parquet", "subsets/4.parquet"]
)
def test_a_table_that_cannot_be_read_is_told(dataset: Dataset, name: str) -> None:
    dataset.write_subset(4, policy="top", seed=0)
    dataset.unit_ids  # noqa: B018 - known before the plan is damaged
    path = Path(dataset.path(name))
    path.write_bytes(path.read_bytes()[:-20])
    assert any(fault.startswith(f"{name} cannot be read") for fault in verify(dataset))


def test_a_removal_that_is_not_compacted_is_no_fault(dataset: Dataset) -> None:
    dataset.write_subset(4, policy="top", seed=0)
    tombstones.bury(dataset.uri, dataset.view().keys()[:2])
    assert verify(dataset) == []


def test_each_byte_of_a_shard_is_read_once(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: Counter[str] = Counter()
    real = storage.open_binary

    @contextmanager
    def counted(uri: str) -> Iterator[IO[bytes]]:
        opened[Path(uri).name] += 1
        with real(uri) as file:
            yield file

    def refused(uri: str, *place: Any) -> bytes:
        assert not uri.endswith(".tar"), uri
        return read(uri, *place)

    read = storage.read_bytes
    monkeypatch.setattr(storage, "open_binary", counted)
    monkeypatch.setattr(storage, "read_bytes", refused)
    assert verify(dataset) == []
    tars = {name: times for name, times in opened.items() if name.endswith(".tar")}
    assert len(tars) == 3
    assert set(tars.values()) == {1}


def test_a_quick_look_reads_no_shard_and_finds_what_is_not_whole(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = sorted(Path(dataset.path("shards")).glob("*.tar"))
    with monkeypatch.context() as patch:
        patch.setattr(storage, "open_binary", lambda uri: pytest.fail(f"read {uri}"))
        assert verify(dataset, quick=True) == []
    flipped = bytearray(shards[0].read_bytes())
    flipped[2000] ^= 1
    shards[0].write_bytes(flipped)
    assert verify(dataset, quick=True) == []  # which needs the bytes
    assert len(verify(dataset)) == 1
    shards[1].write_bytes(shards[1].read_bytes()[:-512])
    shards[2].unlink()
    cut, gone = sorted(verify(dataset, quick=True))
    assert shards[1].name in cut
    assert "bytes, committed" in cut
    assert gone.startswith(f"{shards[2].name}: FileNotFoundError")


def test_a_quick_look_compares_the_tables_all_the_same(dataset: Dataset) -> None:
    rewrite(dataset, "manifest.parquet", with_value("offset", 512))
    assert any("manifest.parquet and the rows of" in one for one in verify(dataset, quick=True))
