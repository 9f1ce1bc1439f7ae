"""The next generation of a dataset whose source was found anew: what came, changed and went."""

from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catalog import lookup, spill, storage, tables
from catalog.dataset.commits import SHARDS, read_commits
from catalog.dataset.dataset import Dataset
from catalog.dataset.plans import SOURCES, never_planned
from catalog.errors import DatasetError
from catalog.sample import DROPPED
from pipeline.plan.generation import append
from pipeline.plan.judge import judge
from pipeline.recipe.recipe import Recipe
from pipeline.scan.scan import count_captions


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How a source differs from the one before; images that a rule rejects do not count.

    Attributes:
        added: images that were never planned, or of which nothing is left since a compaction.
        changed: images of which it tells another caption, label or popularity.
        returned: images that it had once, and has again; what was made of them stays.
        gone: images that it has no more, or that a rule rejects now.
        unchanged: all others.
    """

    added: int = 0
    changed: int = 0
    returned: int = 0
    gone: int = 0
    unchanged: int = 0

    def __str__(self) -> str:
        """Return the figures in words."""
        return ", ".join(f"{count:,} {name}" for name, count in asdict(self).items())


def grow(
    dataset: Dataset, recipe: Recipe, source: pa.Table, metadata: dict[str, Any]
) -> Growth | None:
    """Plan what is new or changed as the next generation; the dataset is opened anew to see it.

    Args:
        dataset: of which every unit is committed.
        recipe: of the dataset.
        source: as it is now, of the schema `catalog.tables.SOURCE`; what was taken down is marked.
        metadata: to keep with it.

    Returns:
        What it comes to; None where the source is as it was, and nothing was planned.

    Raises:
        DatasetError: no image is left, or another generation was planned meanwhile.
    """
    judged = judge(source, recipe)
    metadata = {**metadata, "captions": count_captions(judged)}
    dropped = _dropped(dataset)
    wanted = spill.where(judged, pc.invert(never_planned(judged)))
    if judged.equals(_read(dataset.source)) and not _count(lookup.is_in(wanted["sha256"], dropped)):
        return None
    if not wanted.num_rows:
        raise DatasetError(
            f"no image of the source can be used now: {dataset.uri} stays as it is. If that is "
            "meant, delete it; else mend the source"
        )
    planned, changed = _compare(dataset, recipe, wanted, dropped)
    rows = spill.where(wanted, pc.or_(pc.invert(planned), changed))
    name = tables.create_named_parquet(dataset.path(SOURCES), judged, metadata)
    rows = rows.drop_columns(tables.OF_SCAN_ALONE)
    append(dataset, recipe, rows, source=storage.join(SOURCES, name))
    before = tables.read_table(dataset.source, ["sha256", "status", "rank"])
    before = before["sha256"].filter(pc.invert(never_planned(before)))
    there = lookup.is_in(wanted["sha256"], before)
    stayed = _count(there)
    came_back = _count(pc.and_(pc.invert(there), pc.and_(planned, pc.invert(changed))))
    return Growth(
        added=_count(pc.invert(planned)),
        changed=_count(changed),
        returned=came_back,
        gone=len(before) - stayed,
        unchanged=wanted.num_rows - rows.num_rows - came_back,
    )


def _compare(
    dataset: Dataset, recipe: Recipe, wanted: pa.Table, dropped: pa.ChunkedArray
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Return which images are planned, and of which of them the plan tells something else."""
    told = ["label_sha256", "popularity"]
    if not recipe.captions.wants("a caption that is there"):
        told.append("caption")
    known = dataset.plans.planned_last(wanted["sha256"], told)
    known = spill.where(known, pc.invert(lookup.is_in(known["sha256"], dropped)))
    at = lookup.index_in(wanted["sha256"], known["sha256"])
    planned = pc.is_valid(at)
    differs = pc.and_(planned, False)
    if not known.num_rows:
        return planned, differs
    somewhere = pc.fill_null(at, 0).to_numpy()
    for name in told:
        ours, theirs = wanted[name], spill.take_values(known[name], somewhere)
        equal = pc.fill_null(pc.equal(ours, theirs), False)
        both_null = pc.and_(pc.is_null(ours), pc.is_null(theirs))
        differs = pc.or_(differs, pc.and_(planned, pc.invert(pc.or_(equal, both_null))))
    return planned, differs


def _dropped(dataset: Dataset) -> pa.ChunkedArray:
    """Return the sha256s of images of whose latest sample a compaction left nothing."""
    parts = [pa.table({"sha256": pa.array([], pa.string()), "unit": pa.array([], pa.int32())})]
    for commit in read_commits(dataset.uri):
        if DROPPED in commit.counts:
            rows = tables.read_where(
                dataset.path(SHARDS, commit.rows.name),
                ["sha256", "status"],
                lambda rows: pc.equal(rows["status"], DROPPED),
            )
            unit = pa.array([commit.index] * rows.num_rows, pa.int32())
            parts.append(rows.select(["sha256"]).append_column("unit", unit))
    return dataset.plans.latest(pa.concat_tables(parts))["sha256"]


def _read(uri: str) -> pa.Table:
    table = tables.read_table(uri).replace_schema_metadata(None)
    return table.cast(tables.SOURCE) if table.schema.names == tables.SOURCE.names else table


def _count(mask: pa.ChunkedArray) -> int:
    return int(pc.sum(mask).as_py() or 0)
