"""Which samples and held maps below ``shards/`` something still shows, and in which unit they lie.

A dataset that follows its source leaves samples behind in its shards: of images that the source has
no more, or of which it tells another caption. What neither the manifest nor a snapshot shows is not
needed, nor are maps of a rejected image that is gone. A sample is known by the hash of its block;
of equal ones the latest unit's is needed.
"""

from collections.abc import Iterator
from typing import Literal, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from catalog import tables
from catalog.dataset import commits, tombstones
from catalog.dataset.commits import Commit
from catalog.dataset.dataset import MANIFEST, Dataset
from catalog.dataset.snapshots import list_snapshots, manifest_of
from catalog.sample import OK, REMOVED

Fate: TypeAlias = Literal["stays", "removed", "dropped"]
"""What becomes of a unit's row."""

_PLACE = ["block_sha256", "offset", "length"]
_SCHEMA = pa.schema([*(tables.ROWS.field(name) for name in _PLACE), tables.MANIFEST.field("shard")])


class Needed:
    """Says what of the units' rows stays.

    Args:
        dataset: finished and folded.
        done: its commits.
        keys: of what was taken down.
    """

    def __init__(self, dataset: Dataset, done: list[Commit], keys: set[str]) -> None:
        self._dataset = dataset
        self._keys = keys
        self._units: dict[str, int] | None = None
        if dataset.plans.grown:  # else the manifest shows all that there is
            shown = _shown(dataset)
            self._units = {}
            for commit, rows in samples(dataset, done):
                blocks = rows["block_sha256"]
                found = blocks.filter(pc.is_in(blocks, shown)).to_pylist()
                self._units.update(dict.fromkeys(found, commit.index))

    def fates(self, commit: Commit, rows: pa.Table) -> list[Fate]:
        """Return what becomes of each row of a unit."""
        gone = pc.fill_null(tombstones.is_removed(rows["sha256"], self._keys), False).to_pylist()
        held = pc.and_(pc.is_valid(rows["offset"]), pc.not_equal(rows["status"], OK))
        current = self._current(commit, rows.filter(held))
        return [
            self._fate(commit, row, removed, row["sha256"] in current)
            for row, removed in zip(
                rows.select(["sha256", "status", *_PLACE]).to_pylist(), gone, strict=True
            )
        ]

    def _fate(self, commit: Commit, row: dict[str, object], removed: bool, current: bool) -> Fate:
        if removed:
            return "stays" if row["status"] == REMOVED else "removed"
        if self._units is None or row["offset"] is None:
            return "stays"
        if row["status"] == OK:
            current = self._units.get(str(row["block_sha256"])) == commit.index
        return "stays" if current else "dropped"

    def _current(self, commit: Commit, rows: pa.Table) -> set[str]:
        """Return the sha256s of those rows of a unit that are their images' latest."""
        if not rows.num_rows:
            return set()
        unit = pa.array([commit.index] * rows.num_rows, pa.int32())
        rows = rows.select(["sha256"]).replace_schema_metadata(None).append_column("unit", unit)
        return set(self._dataset.plans.current(rows)["sha256"].to_pylist())


def samples(dataset: Dataset, done: list[Commit]) -> Iterator[tuple[Commit, pa.Table]]:
    """Yield the commits in order, each with hash, offset and length of the samples in its tar."""
    for commit in sorted(done, key=lambda one: one.index):
        uri = dataset.path(commits.SHARDS, commit.rows.name)
        rows = tables.read_where(
            uri, ["status", *_PLACE], lambda rows: pc.equal(rows["status"], OK)
        )
        yield commit, rows.select(_PLACE)


def places(dataset: Dataset, done: list[Commit]) -> pa.Table:
    """Return hash, offset, length and shard of all samples below ``shards/``, the latest first."""
    found = [_SCHEMA.empty_table()]
    for commit, rows in samples(dataset, done):
        shard = pa.array([commit.shard.name] * rows.num_rows, pa.string())
        found.insert(0, rows.replace_schema_metadata(None).append_column("shard", shard))
    return pa.concat_tables([one.cast(_SCHEMA) for one in found])


def _shown(dataset: Dataset) -> pa.Array:
    """Return the hashes of the blocks that the manifest or a snapshot shows, each once."""
    column, found = "block_sha256", pa.array([], pa.string())
    for view in (MANIFEST, *(manifest_of(one.name) for one in list_snapshots(dataset.uri))):
        blocks = tables.read_table(dataset.path(view), [column])[column]
        found = pc.unique(pa.chunked_array([found, *blocks.chunks]))
    return found
