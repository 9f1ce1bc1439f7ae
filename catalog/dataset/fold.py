"""Commits folded into what people read: the kept samples in rank order, and every reject.

Two passes over the units' rows: the first reads what samples are ranked by, the second copies
whole rows in that order, a piece at a time. Units are slices of a ranking, so a piece needs few of
them, and memory grows by a row's keys, not by its captions and parameters.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog import storage, tables
from catalog.dataset.commits import Commit
from catalog.dataset.plans import Plans, never_planned
from catalog.lookup import Hashes
from catalog.sample import OK
from catalog.source.ranking import Ranking, rank_order

MANIFEST = "manifest.parquet"
REJECTS = "rejects.parquet"

_KEYS = ["status", "sha256", "source_width", "source_height", "popularity"]
_JUDGED = ["sha256", "status", "value", "threshold", "detail"]
_WHERE = ["sha256", "uri", "offset", "row", "width", "height"]
_UNIT = pa.field("unit", pa.int32())
_PLACE = [pa.field("commit", pa.int32()), pa.field("at", pa.int32())]  # which of its rows
_KEPT = pa.schema([_UNIT, *_PLACE, *(tables.ROWS.field(name) for name in _KEYS)])
_LOST = pa.schema([_UNIT, *(tables.ROWS.field(name) for name in _JUDGED)])
_COPIED = [name for name in tables.MANIFEST.names if name not in ("rank", "shard")]

_THREADS = 8
_PIECE = 65_536  # rows of the manifest that are put together at a time


class Fold:
    """The commits of a dataset, read once for what ranks and what was lost.

    Args:
        shards: URI of the folder that holds the units' files.
        done: the commits of all units.
        plans: all generations; of an image that several hold the latest counts.
    """

    def __init__(self, shards: str, done: Sequence[Commit], plans: Plans) -> None:
        self._shards = shards
        self._done = done
        self._plans = plans
        with ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(self._read_keys, range(len(done))))
        kept = pa.concat_tables([_KEPT.empty_table(), *(kept for kept, _ in found)])
        self._kept = plans.current(kept) if plans.grown else kept
        lost = pa.concat_tables([_LOST.empty_table(), *(lost for _, lost in found)])
        self._lost = plans.current(lost)

    def write_manifest(self, uri: str, *, by: Ranking, folded: str) -> None:
        """Write the kept samples in rank order; `folded` names the commits in its metadata."""
        order = rank_order(
            self._kept, by=by, width_column="source_width", height_column="source_height"
        ).to_numpy()
        commits, places = (self._kept[field.name].to_numpy()[order] for field in _PLACE)
        pieces = self._pieces(commits, places)
        tables.write_parquet(uri, tables.MANIFEST, pieces, {"folded": folded})

    def write_rejects(self, uri: str, *, source: str, folded: str) -> None:
        """Write what the scan or the recipe's limits rejected, then what the units lost for good.

        Args:
            uri: of the table to write.
            source: URI of the source as it is now.
            folded: names the commits in its metadata.
        """
        names = tables.REJECTS.names
        scanned = tables.read_where(source, [*names, "rank"], never_planned).select(names)
        lost = self._lost.select(_JUDGED)
        hashes = Hashes(lost["sha256"])
        planned = tables.read_where(
            source,
            [*_WHERE, "status", "rank"],
            lambda rows: pc.and_(pc.invert(never_planned(rows)), hashes.has(rows["sha256"])),
        ).select(_WHERE)
        joined = lost.join(planned, "sha256", join_type="left outer").sort_by("sha256")
        joined = joined.append_column("against", pa.nulls(joined.num_rows, pa.string()))
        rejects = pa.concat_tables([scanned, joined.select(names).cast(tables.REJECTS)])
        storage.write_atomic(uri, tables.to_parquet(rejects, {"folded": folded}))

    def _read_keys(self, commit: int) -> tuple[pa.Table, pa.Table]:
        rows = self._read(commit, [*_KEYS, *(name for name in _JUDGED if name not in _KEYS)])
        good = pc.equal(rows["status"], OK)
        count = rows.num_rows
        unit = pa.array(np.full(count, self._done[commit].index), _UNIT.type)
        rows = rows.append_column(_UNIT, unit)
        place = np.full(count, commit), np.arange(count)
        kept = rows
        for field, values in zip(_PLACE, place, strict=True):
            kept = kept.append_column(field, pa.array(values, field.type))
        lost = rows.filter(pc.invert(good))
        return kept.filter(good).select(_KEPT.names), lost.select(_LOST.names)

    def _read(self, commit: int, columns: list[str]) -> pa.Table:
        # Whole: over a network one request for 100 kB beats three for parts of it.
        data = storage.read_bytes(storage.join(self._shards, self._done[commit].rows.name))
        return tables.parse_parquet(data, columns)

    def _pieces(self, units: np.ndarray, places: np.ndarray) -> Iterator[pa.Table]:
        """Yield pieces of the manifest, each sample given by its unit and its place in there."""
        held: dict[int, pa.Table] = {}
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, max(len(units), 1), _PIECE):
                piece = slice(start, start + _PIECE)
                needed, which = np.unique(units[piece], return_inverse=True)
                missing = [int(unit) for unit in needed if unit not in held]
                found = pool.map(lambda unit: self._read(unit, _COPIED), missing)
                held |= dict(zip(missing, found, strict=True))
                held = {int(unit): held[int(unit)] for unit in needed}
                yield self._piece(held, which, places[piece], start)

    def _piece(
        self, held: dict[int, pa.Table], which: np.ndarray, places: np.ndarray, start: int
    ) -> pa.Table:
        sizes = [rows.num_rows for rows in held.values()]
        begins = np.cumsum([0, *sizes])[which]
        empty = tables.ROWS.empty_table().select(_COPIED)
        rows = pa.concat_tables([empty, *held.values()]).take(begins + places)
        names = pa.array([self._done[unit].shard.name for unit in held], pa.string())
        ranks = pa.array(np.arange(start, start + len(places)), pa.int64())
        rows = rows.append_column("shard", names.take(pa.array(which, pa.int64())))
        rows = rows.append_column("rank", ranks)
        return rows.select(tables.MANIFEST.names).cast(tables.MANIFEST)
