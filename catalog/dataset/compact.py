"""Rewrite the shards that hold what was taken down, or what no view and no snapshot shows any more.

A unit's new tar and rows are published under names of their own, then its commit is replaced by one
that names them; the views are folded anew, what was rewritten is verified, and last the files that
no commit names are deleted. So whatever a reader finds at any moment is whole, and after a kill the
same call goes on. A removed image keeps one row with its sha256, status ``removed``: the plan's
units are named by the hashes of their images, and what is told once must not come back as new. What
was only left behind by a source that went on keeps one of status ``dropped``, and may come back.
"""

import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catalog import lookup, spill, storage, tables
from catalog.dataset import busy, commits, snapshots, tombstones
from catalog.dataset.agreement import Places
from catalog.dataset.commits import UNIT_FILE, Attempt, Commit
from catalog.dataset.dataset import MANIFEST, SUBSETS, Dataset
from catalog.dataset.latents import forget_stale
from catalog.dataset.needed import Fate, Needed, places
from catalog.dataset.orphans import named_files
from catalog.dataset.scratch import own_folder
from catalog.dataset.shards import ShardWriter
from catalog.dataset.subset_tars import delete_stale
from catalog.dataset.verify import check_commit
from catalog.errors import CorruptSampleError, DatasetError
from catalog.sample import DROPPED, OK, REMOVED, sha256_hex

_LEFT_OF: dict[Fate, str] = {"removed": REMOVED, "dropped": DROPPED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    """What a call did.

    Attributes:
        units: units rewritten.
        deleted: files deleted: shards and rows that were replaced, copies made for a card, and
            latents made of what was replaced.
    """

    units: int
    deleted: int


def compact(dataset: Dataset) -> Compacted:
    """Delete what was taken down from shards, rows, views, source and plan; again is no harm.

    From shards and rows also what neither the dataset as it is now nor a snapshot shows.

    Raises:
        DatasetError: the build is not finished, or what was rewritten does not verify (the old
            shards are kept then).
        CorruptSampleError: a sample that is to be kept is not the committed one.
    """
    if pending := dataset.pending():
        raise DatasetError(f"{len(pending)} units are not built: finish the build, then compact")
    keys = tombstones.removed_keys(dataset.uri)
    if not keys and not dataset.plans.grown:
        return Compacted(units=0, deleted=0)
    with busy.marked(dataset.uri, busy.COMPACT, until_done=True):
        dataset = Dataset.open(dataset.uri)  # as it is planned now
        if not dataset.is_folded():
            dataset.fold()  # else what was committed last would be shown by nothing
        with _scratch(dataset.uri) as folder:
            found = commits.read_commits(dataset.uri)
            needed = Needed(dataset, found, keys)
            rewritten = sum(_rewrite(dataset, commit, needed, folder) for commit in found)
        for name in dict.fromkeys(dataset.plans.sources):
            _rewrite_table(dataset.path(name), partial(tombstones.mark_removed, keys=keys))
        for name in dataset.plans.names:
            _rewrite_table(dataset.path(name), partial(tombstones.blank_texts, keys=keys))
        dataset.fold()  # of the source too: rejects would tell what it said
        _fold_subsets(dataset)
        _fold_snapshots(dataset, keys)
        _verify(dataset)
        deleted = _delete_unnamed(dataset) + delete_stale(dataset)
        deleted += forget_stale(dataset.uri, commits.read_commits(dataset.uri))
    return Compacted(units=rewritten, deleted=deleted)


@contextmanager
def _scratch(uri: str) -> Iterator[Path]:
    """Yield a folder from which files can be published: beside the shards where those are local."""
    root = storage.local_path(uri)
    parent = own_folder() if root is None else root / "tmp"
    folder = parent / f"compact.{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _rewrite(dataset: Dataset, commit: Commit, needed: Needed, folder: Path) -> bool:
    """Replace a unit's files where they hold what is to go; say whether they did."""
    rows = tables.read_table(dataset.path(commits.SHARDS, commit.rows.name))
    fates = needed.fates(commit, rows)
    if set(fates) <= {"stays"}:
        return False
    ends = (".tar", ".parquet", commits.HELD)
    tar, parquet, held = (folder / f"{commit.unit_id}{end}" for end in ends)
    with tar.open("xb") as file, held.open("xb") as held_file:
        writer, holder = ShardWriter(file), ShardWriter(held_file)
        records = _copy(dataset, commit, rows.to_pylist(), fates, writer, holder)
        for one, one_file in ((writer, file), (holder, held_file)):
            one.close()
            storage.sync_file(one_file)
    with parquet.open("xb") as file:
        file.write(tables.to_parquet(pa.Table.from_pylist(records, schema=rows.schema)))
        storage.sync_file(file)
    counts = Counter(record["status"] for record in records)
    attempt = Attempt(
        unit_id=commit.unit_id,
        index=commit.index,
        fingerprint=commit.fingerprint,
        tar=tar,
        rows=parquet,
        counts=dict(sorted(counts.items())),
        environment=commit.environment,
        held=held if holder.blocks else None,
    )
    commits.supersede(dataset.uri, attempt)
    return True


def _copy(
    dataset: Dataset,
    commit: Commit,
    rows: list[dict[str, Any]],
    fates: list[Fate],
    writer: ShardWriter,
    holder: ShardWriter,
) -> list[dict[str, Any]]:
    """Copy the blocks that stay, samples and held maps; return the rows with their new offsets."""
    records = []
    for row, fate in zip(rows, fates, strict=True):
        if fate in _LEFT_OF:
            records.append(tombstones.removed_row(row["sha256"], _LEFT_OF[fate]))
            continue
        if row["offset"] is not None:
            kept = row["status"] == OK
            file = commit.shard if kept else commit.held
            assert file is not None, row["key"]
            old = dataset.path(commits.SHARDS, file.name)
            block = storage.read_bytes(old, row["offset"], row["length"])
            if sha256_hex(block) != row["block_sha256"]:
                raise CorruptSampleError(f"{old}: the bytes of {row['key']} changed; run verify")
            row = {**row, "offset": (writer if kept else holder).add_block(block).offset}
        records.append(row)
    return records


def _fold_subsets(dataset: Dataset) -> None:
    """Point the subsets' rows at the new shards; their order and their metadata stay."""
    manifest = tables.read_table(dataset.path(MANIFEST)).replace_schema_metadata(None)
    for name in dataset.subsets():
        uri = dataset.path(SUBSETS, f"{name}.parquet")
        chosen = tables.read_table(uri, ["key"])["key"]
        places = lookup.index_in(chosen, manifest["key"]).drop_null()
        found = spill.take(manifest, places.to_numpy())
        data = tables.to_parquet(found, tables.read_metadata(uri))
        storage.write_atomic(uri, data)


def _fold_snapshots(dataset: Dataset, keys: set[str]) -> None:
    """Point the snapshots' rows at the new shards, and blank what was taken down; ranks stay."""
    taken = snapshots.list_snapshots(dataset.uri)
    lie = places(dataset, commits.read_commits(dataset.uri)) if taken else None
    for name in [one.name for one in taken]:
        uri = dataset.path(snapshots.manifest_of(name))
        moved = _moved(tables.read_table(uri), places=lie, keys=keys, name=name)
        storage.write_atomic(uri, tables.to_parquet(moved, tables.read_metadata(uri)))
        blank = partial(tombstones.mark_removed, keys=keys)
        _rewrite_table(dataset.path(snapshots.rejects_of(name)), blank)


def _moved(rows: pa.Table, *, places: pa.Table, keys: set[str], name: str) -> pa.Table:
    """Return a snapshot's rows less what was taken down, each where its sample lies now."""
    rows = rows.filter(pc.invert(tombstones.is_removed(rows["sha256"], keys)))
    at = lookup.index_in(rows["block_sha256"], places["block_sha256"])
    if at.null_count:
        lost = rows.filter(pc.is_null(at))["key"][0].as_py()
        raise DatasetError(f"sample {lost} of snapshot {name} is in no shard; run verify")
    for column in ("shard", "offset"):
        field = rows.schema.field(column)
        found = spill.take_values(places[column], at.to_numpy()).cast(field.type)
        rows = rows.set_column(rows.schema.get_field_index(column), field, found)
    return rows


def _rewrite_table(uri: str, blank: Callable[[pa.Table], pa.Table]) -> None:
    table = tables.read_table(uri)
    blanked = blank(table)
    if blanked.equals(table):
        return
    with tables.open_parquet(uri) as file:  # the plan's row groups are its units
        sizes = [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)]
    starts = [0, *accumulate(sizes)]
    groups = (blanked.slice(start, size) for start, size in zip(starts, sizes, strict=False))
    tables.write_parquet(uri, blanked.schema, groups, tables.read_metadata(uri))


def _verify(dataset: Dataset) -> None:
    places = Places(dataset)
    done = commits.read_commits(dataset.uri)
    found = [one for one in done if {REMOVED, DROPPED} & {*one.counts}]
    checked = [check_commit(dataset, places, commit) for commit in found]
    faults = [fault for one in checked for fault in one.faults]
    faults += [f"{MANIFEST} and the rows of {one.name} differ" for one in checked if not one.agrees]
    if faults:
        raise DatasetError("what was rewritten does not verify: " + "; ".join(faults))


def _delete_unnamed(dataset: Dataset) -> int:
    """Delete units' files that no commit names; all units are committed, none is on its way.

    Raises:
        DatasetError: a generation was planned meanwhile, and its files may wait for their commits.
    """
    present = storage.list_names(dataset.path(commits.SHARDS))
    if Dataset.open(dataset.uri).pending():
        raise DatasetError(
            f"images of {dataset.uri} are being tried again since this began; what was removed is "
            "in no view, and old files are left: let retry-failed end, then compact it again"
        )
    named = named_files(dataset)
    unnamed = [name for name in present if name not in named and UNIT_FILE.fullmatch(name)]
    for name in unnamed:
        storage.remove(dataset.path(commits.SHARDS, name))
    return len(unnamed)
