"""Do the tables of a dataset say the same as each other and as its commits?

The shards and the units' rows have hashes in the commits. The other tables have none; each says
something that another one says too, or that can be folded again, and is compared with that.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalog import lookup, spill, tables
from catalog.dataset import commits, snapshots, tombstones
from catalog.dataset.dataset import MANIFEST, PLAN, REJECTS, SUBSETS, Dataset, View
from catalog.dataset.needed import places as lie
from catalog.dataset.plans import never_planned
from catalog.errors import DatasetError
from catalog.sample import OK, REMOVED
from catalog.source.ranking import unit_id

_PLACE = ["key", "offset", "length", "block_sha256"]
_VERDICT = ["sha256", "status", "value", "threshold"]
_AGAIN = "delete it and run the build again, which folds it anew"


class Places:
    """Where the manifest says that each sample lies, by shard: read once, whole.

    Args:
        dataset: finished.
    """

    def __init__(self, dataset: Dataset) -> None:
        table = tables.read_table(dataset.path(MANIFEST), [*_PLACE, "shard"])
        self.table = table.replace_schema_metadata(None)
        encoded = self.table["shard"].dictionary_encode().unify_dictionaries()
        shards = encoded.combine_chunks()
        codes = shards.indices.to_numpy()
        self._order = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[self._order], np.arange(len(shards.dictionary) + 1))
        self._slices = {
            shard: slice(int(bounds[at]), int(bounds[at + 1]))
            for at, shard in enumerate(shards.dictionary.to_pylist())
        }

    @property
    def shards(self) -> set[str]:
        """The shards that hold a sample."""
        return set(self._slices)

    def of(self, shard: str) -> pa.Table:
        """Return the rows of one shard in the order of their bytes: key, offset, length, hash."""
        rows = spill.take(self.table, self._order[self._slices.get(shard, slice(0))])
        return rows.sort_by("offset")


def unit_agrees(places: pa.Table, rows: pa.Table) -> bool:
    """Say whether the manifest places a unit's samples where the unit's own rows do.

    Args:
        places: what `Places.of` returns of its shard.
        rows: of the unit.
    """
    kept = rows.filter(pc.equal(rows["status"], OK)).select(_PLACE).sort_by("offset")
    return bool(places.select(_PLACE).cast(kept.schema).equals(kept))


def disagreements(dataset: Dataset, places: Places, lost: pa.Table) -> Iterator[str]:
    """Compare plan, source, rejects, subsets and snapshots; yield what is wrong, a line each.

    Args:
        dataset: finished.
        places: of its samples.
        lost: the rows of all units that are no samples, with the index of the unit.
    """
    for generation, name in enumerate(dataset.plans.names):
        yield from _readable(name, partial(_check_plan, dataset, generation))
    for name in dict.fromkeys(dataset.plans.sources):
        yield from _readable(name, partial(_check_source, dataset, name))
    yield from _readable(REJECTS, lambda: _check_rejects(dataset, lost))
    for name in dataset.subsets():
        path = f"{SUBSETS}/{name}.parquet"
        yield from _readable(path, partial(_check_subset, dataset, path, places))
    if names := snapshots.snapshot_names(dataset.uri):
        samples = lie(dataset, commits.read_commits(dataset.uri))
        for name in names:
            path = snapshots.manifest_of(name)
            yield from _readable(path, partial(_check_snapshot, dataset, name, path, samples))
            path = snapshots.rejects_of(name)
            yield from _readable(path, partial(_check_snapshot_rejects, dataset, name, path))


def _readable(path: str, check: Callable[[], Iterator[str]]) -> Iterator[str]:
    try:
        yield from check()
    except (DatasetError, KeyError, OSError, pa.ArrowException) as error:
        yield f"{path} cannot be read: {type(error).__name__}: {error}"


def _check_plan(dataset: Dataset, generation: int) -> Iterator[str]:
    """A unit's id is a hash of the hashes of its images, so it tells whether they are still so."""
    labelled = dataset.recipe.get("labels") is not None
    columns = ["sha256", "label_sha256"] if labelled else ["sha256"]
    name = dataset.plans.names[generation]
    with tables.open_parquet(dataset.path(name)) as file:
        ids = tables.read_metadata(dataset.path(name))["unit_ids"]
        units = file.num_row_groups if file.metadata.num_rows else 0  # nothing came, some went
        if units != len(ids):
            yield f"{name} has {units} units, and ids of {len(ids)}"
            return
        first = dataset.plans.firsts[generation]
        for at, unit in enumerate(ids):
            rows = file.read_row_group(at, columns=columns)
            if labelled and rows["label_sha256"].null_count:
                continue  # of what was taken down: blanked
            hashes = rows["sha256"]
            if labelled:
                hashes = pc.binary_join_element_wise(hashes, rows["label_sha256"], " ")
            if unit_id(dataset.fingerprint, hashes.to_pylist(), generation=generation) != unit:
                yield f"{name}: unit {first + at} ({unit}) holds other images than its id says"


def _check_source(dataset: Dataset, path: str) -> Iterator[str]:
    """What is ranked in a source is what is planned from it, by the first plan whole.

    A column at a time, as they are long.
    """
    pairs = zip(dataset.plans.names, dataset.plans.sources, strict=True)
    names = [name for name, source in pairs if source == path]
    with ExitStack() as files:
        source = files.enter_context(tables.open_parquet(dataset.path(path)))
        plans = [files.enter_context(tables.open_parquet(dataset.path(name))) for name in names]
        ranks = _column(source, "rank")
        ranked = pc.is_valid(ranks)
        # Which rows of the source each generation holds.
        planned = [pc.is_in(ranks, _column(plan, "rank")) for plan in plans]
        planned = [
            ranked if name == PLAN else mask for name, mask in zip(names, planned, strict=True)
        ]
        for name in source.schema_arrow.names:
            found = _column(source, name)  # also of those that no plan holds: can it be read?
            for plan, mask, planned_in in zip(plans, planned, names, strict=True):
                if name not in plan.schema_arrow.names or name == "status":
                    continue
                theirs = _column(plan, name)
                if not found.filter(mask).cast(theirs.type).equals(theirs):
                    yield f"{path} and {planned_in} differ in the column {name} of planned images"
        status = _column(source, "status").filter(ranked)
        if not pc.all(pc.is_in(status, pa.array([OK, REMOVED]))).as_py():
            yield f"{path}: an image is planned and rejected"


def _column(file: pq.ParquetFile, name: str) -> pa.ChunkedArray:
    return file.read(columns=[name])[name]


def _check_rejects(dataset: Dataset, lost: pa.Table) -> Iterator[str]:
    names = [*_VERDICT, "rank"]
    scanned = tables.read_where(dataset.source, names, never_planned).select(_VERDICT)
    lost = dataset.plans.current(lost)
    ours = pa.concat_tables([scanned, lost.select(_VERDICT).cast(scanned.schema).sort_by("sha256")])
    theirs = tables.read_table(dataset.path(REJECTS)).replace_schema_metadata(None)
    if not theirs.select(_VERDICT).cast(ours.schema).equals(ours):
        said = f"{dataset.plans.source} and the units say"
        yield f"{REJECTS} is not what {said}: {_AGAIN}, with {MANIFEST}"


def _check_subset(dataset: Dataset, path: str, places: Places) -> Iterator[str]:
    names = [*_PLACE, "shard"]
    rows = tables.read_table(dataset.path(path)).replace_schema_metadata(None).select(names)
    at = lookup.index_in(rows["key"], places.table["key"])
    wrong = pc.is_null(at)
    somewhere = pc.fill_null(at, 0).to_numpy()
    found = spill.take(places.table, somewhere) if places.table.num_rows else rows
    for name in names:
        wrong = pc.or_(wrong, pc.not_equal(found[name].cast(rows[name].type), rows[name]))
    if number := pc.sum(wrong).as_py():
        first = rows.filter(wrong)["key"][0].as_py()
        yield (
            f"{path}: {number:,} of {rows.num_rows:,} samples do not lie where it says (first: "
            f"{first}); run compact if samples were taken down, else cut the subset again"
        )


def _check_snapshot(dataset: Dataset, name: str, path: str, samples: pa.Table) -> Iterator[str]:
    """A snapshot has the samples that its record says, but for those that were taken down since."""
    record = snapshots.read_snapshot(dataset.uri, name)
    rows = snapshots.read_samples(dataset.uri, name)
    missing, buried = record.samples - rows.num_rows, len(tombstones.removed_keys(dataset.uri))
    if not 0 <= missing <= buried:
        yield (
            f"{path} has {rows.num_rows:,} samples of {record.samples:,}, and "
            f"{buried:,} were taken down since"
        )
    elif not missing and View(dataset.uri, name, rows).fingerprint != record.view:
        yield f"{path} holds other samples than its {snapshots.RECORD} says"
    names = [*_PLACE[1:], "shard"]
    wanted = (
        rows.select(names)
        .cast(samples.select(names).schema)
        .append_column("at", pa.array(np.arange(rows.num_rows)))
    )
    wrong = wanted.join(samples, names, join_type="left anti")["at"]
    if len(wrong):
        yield (
            f"{path}: {len(wrong):,} of {rows.num_rows:,} samples do not lie where it says (first: "
            f"{rows['key'][pc.min(wrong).as_py()].as_py()}); run compact if samples were taken "
            "down, else drop the snapshot"
        )


def _check_snapshot_rejects(dataset: Dataset, name: str, path: str) -> Iterator[str]:
    record = snapshots.read_snapshot(dataset.uri, name)
    rows, told = snapshots.read_rejects(dataset.uri, name), sum(record.rejects.values())
    if rows.num_rows != told:
        yield f"{path} has {rows.num_rows:,} images, its {snapshots.RECORD} says {told:,}"
