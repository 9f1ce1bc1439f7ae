"""Where samples lie since a compaction rewrote their units: for views that were open meanwhile."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catalog import storage, tables
from catalog.dataset import commits
from catalog.dataset.commits import UNIT_FILE, Commit
from catalog.errors import CorruptSampleError
from catalog.sample import OK

_PLACE = ["offset", "length", "block_sha256"]


class Moves:
    """Finds samples of a dataset whose shard is not there any more; reads a unit's rows once."""

    def __init__(self, dataset: str) -> None:
        self._dataset = dataset
        self._ids: dict[str, list[str]] = {}
        self._units: dict[str, tuple[str, pa.Table]] = {}

    def find(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """Return a row of a manifest with the place where its sample lies now.

        None where nothing took the shard's place: it is the storage that is not there.

        Raises:
            CorruptSampleError: the sample was deleted with the shard.
        """
        unit = self._unit(row["shard"])
        if unit is None:
            return None
        shard, rows = unit
        at = pc.index(rows["key"], row["key"]).as_py()
        if at < 0:
            raise CorruptSampleError(f"{row['shard']}: {row['key']} was deleted by a compaction")
        (place,) = rows.select(_PLACE).slice(at, 1).to_pylist()
        return {**row, "shard": shard, **place}

    def _unit(self, shard: str) -> tuple[str, pa.Table] | None:
        """Return the shard that took a shard's place, and the rows of its samples."""
        known = self._units.get(shard)
        if known is not None and storage.exists(self._path(known[0])):
            return known
        commit = self._commit(shard)
        if commit is None or commit.shard.name == shard:
            return None
        rows = tables.read_table(self._path(commit.rows.name), ["key", "status", *_PLACE])
        self._units[shard] = commit.shard.name, rows.filter(pc.equal(rows["status"], OK))
        return self._units[shard]

    def _commit(self, shard: str) -> Commit | None:
        """Return the commit of the unit that a shard's name tells of."""
        found = UNIT_FILE.fullmatch(shard)
        if found is None:
            return None
        if not self._ids:
            for unit_id in commits.committed_ids(self._dataset):
                self._ids.setdefault(unit_id[:8], []).append(unit_id)
        for unit_id in self._ids.get(found[2], ()):
            commit = commits.read_commit(self._dataset, unit_id)
            if commit is not None and commit.index == int(found[1]):
                return commit
        return None

    def _path(self, name: str) -> str:
        return storage.join(self._dataset, commits.SHARDS, name)
