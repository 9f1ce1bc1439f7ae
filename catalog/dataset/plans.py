"""The plan of a dataset, and what was planned after it: generations of units, read as one plan.

plan.parquet                  generation 0; a row group is a unit
plans/<generation>.parquet    generations 1, 2, ...: the units that follow
source.parquet                what generation 0 was planned from
sources/<hash>.parquet        what a later generation was, which names it: the source as it is now

Units are numbered through all generations, and each file is created once. What a later generation
holds again is an image that an earlier one lost (its row says in ``status`` what it failed with),
or one of which the source tells something else since. Of several outcomes of an image the latest
counts, and of an image that the source has no more none does.
"""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalog import lookup, spill, storage, tables
from catalog.dataset.commits import SHARDS, Commit
from catalog.errors import DatasetError
from catalog.lookup import Hashes
from catalog.sample import OK, REMOVED

PLAN = "plan.parquet"
PLANS = "plans"
SOURCE = "source.parquet"
SOURCES = "sources"

_LATER = re.compile(r"\d{6}\.parquet")


def plan_name(generation: int) -> str:
    """Return the path, below the dataset, of the plan of a generation."""
    return f"{PLANS}/{generation:06d}.parquet" if generation else PLAN


def never_planned(source: pa.Table) -> pa.ChunkedArray:
    """Return which rows of a source are in no unit: not those taken down after they were planned.

    Args:
        source: with the columns ``status`` and ``rank``.
    """
    planned_once = pc.and_(pc.equal(source["status"], REMOVED), pc.is_valid(source["rank"]))
    return pc.and_(pc.not_equal(source["status"], OK), pc.invert(planned_once))


class Plans:
    """All generations of a dataset's plan, as they are when this is made; not safe in threads.

    Attributes:
        names: of the generations' files, below the dataset.
    """

    def __init__(self, dataset: str) -> None:
        """List the generations of the dataset at a URI.

        Raises:
            DatasetError: one is missing.
        """
        self._dataset = dataset
        found = storage.list_names(storage.join(dataset, PLANS))
        later = [f"{PLANS}/{name}" for name in found if _LATER.fullmatch(name)]
        self.names = [plan_name(generation) for generation in range(1 + len(later))]
        if missing := sorted(set(self.names[1:]) - set(later)):
            raise DatasetError(f"{missing[0]} of {dataset} is missing: its units follow from it")

    @cached_property
    def unit_ids(self) -> list[str]:
        """Ids of the units of all generations, in order."""
        return [unit for ids in self._ids for unit in ids]

    @cached_property
    def firsts(self) -> list[int]:
        """Index of the first unit of each generation."""
        return [0, *accumulate(len(ids) for ids in self._ids)][:-1]

    @cached_property
    def sources(self) -> list[str]:
        """Names, below the dataset, of the source that each generation was planned from."""
        found = [SOURCE]
        for told in self._told[1:]:
            found.append(told.get("source", found[-1]))
        return found

    @property
    def source(self) -> str:
        """Name of the source as it is now."""
        return self.sources[-1]

    @property
    def grown(self) -> bool:
        """Whether images came, changed or went since the dataset was first planned."""
        return self.source != SOURCE

    @property
    def images(self) -> int:
        """Images in all units; one that is tried again counts again."""
        return sum(self._file(at).metadata.num_rows for at in range(len(self.names)))

    def path(self, generation: int) -> str:
        """Return the URI of a generation's plan."""
        return storage.join(self._dataset, self.names[generation])

    def rows(self, index: int) -> pa.Table:
        """Return the rows of a unit, of the schema `catalog.tables.PLAN`."""
        generation = self.generation_of(index)
        return self._file(generation).read_row_group(index - self.firsts[generation])

    def generation_of(self, index: int) -> int:
        """Return the generation that a unit belongs to."""
        return int(np.searchsorted(self.firsts, index, side="right")) - 1

    def planned_last(self, sha256s: pa.ChunkedArray, columns: Sequence[str]) -> pa.Table:
        """Return of those images that are planned what the last generation that holds each says."""
        wanted = Hashes(sha256s)
        found = tables.PLAN.empty_table().select([*columns, "sha256"])
        for generation in reversed(range(len(self.names))):
            rows = tables.read_where(
                self.path(generation), found.schema.names, lambda rows: wanted.has(rows["sha256"])
            )
            known = lookup.is_in(rows["sha256"], found["sha256"])
            found = pa.concat_tables([found, spill.where(rows, pc.invert(known))])
        return found

    def current(self, rows: pa.Table) -> pa.Table:
        """Leave out the rows of images that a later generation holds again, or that are gone.

        Args:
            rows: of units, with the columns ``sha256`` and ``unit``, the index of the unit.
        """
        rows = self.latest(rows)
        return spill.where(rows, self._wanted.has(rows["sha256"])) if self.grown else rows

    def latest(self, rows: pa.Table) -> pa.Table:
        """Leave out the rows of images that a later generation holds again; as for `current`."""
        for first, hashes in zip(self.firsts[1:], self._later_hashes, strict=True):
            replaced = pc.and_(pc.less(rows["unit"], first), hashes.has(rows["sha256"]))
            rows = spill.where(rows, pc.invert(replaced))
        return rows

    def tried_again(self, units: Collection[str]) -> pa.Table:
        """Return sha256 and earlier status of the images that units of later generations hold."""
        later = range(len(self._ids[0]), len(self.unit_ids))
        wanted = [self.rows(index) for index in later if self.unit_ids[index] in units]
        found = pa.concat_tables([tables.PLAN.empty_table(), *wanted], promote_options="default")
        return found.filter(pc.not_equal(found["status"], OK)).select(["sha256", "status"])

    def replaced(self, done: Sequence[Commit], removed: Collection[str]) -> Counter[str]:
        """Count, by status, the committed rows for which a later one is committed too.

        Args:
            done: the commits.
            removed: keys that were taken down.
        """
        again = self.tried_again({commit.unit_id for commit in done})
        statuses = again["status"].to_pylist()
        if removed and again.num_rows:  # a compaction may have rewritten the earlier rows
            gone = self._compacted(done)
            pairs = zip(again["sha256"].to_pylist(), statuses, strict=True)
            statuses = [REMOVED if sha256 in gone else status for sha256, status in pairs]
        return Counter(statuses)

    @cached_property
    def _told(self) -> list[dict[str, Any]]:
        return [tables.read_metadata(self.path(at)) for at in range(len(self.names))]

    @property
    def _ids(self) -> list[list[str]]:
        return [told["unit_ids"] for told in self._told]

    @cached_property
    def _wanted(self) -> Hashes:
        source = storage.join(self._dataset, self.source)
        columns = ["sha256", "status", "rank"]
        rows = tables.read_where(source, columns, lambda rows: pc.invert(never_planned(rows)))
        return Hashes(rows["sha256"])

    @cached_property
    def _later_hashes(self) -> list[Hashes]:
        later = range(1, len(self.names))
        return [Hashes(tables.read_table(self.path(at), ["sha256"])["sha256"]) for at in later]

    @cached_property
    def _files(self) -> dict[int, pq.ParquetFile]:
        return {}

    def _file(self, generation: int) -> pq.ParquetFile:
        if generation not in self._files:
            self._files[generation] = tables.open_parquet(self.path(generation))
        return self._files[generation]

    def _compacted(self, done: Sequence[Commit]) -> set[str]:
        """Return the sha256s of removed rows in units that a later generation may replace."""
        gone: set[str] = set()
        for commit in done:
            if REMOVED in commit.counts and commit.index < self.firsts[-1]:
                uri = storage.join(self._dataset, SHARDS, commit.rows.name)
                rows = tables.read_table(uri, ["sha256", "status"])
                removed = rows.filter(pc.equal(rows["status"], REMOVED))
                gone.update(removed["sha256"].to_pylist())
        return gone
