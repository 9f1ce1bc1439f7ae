"""Snapshots: named views of a dataset as it once was, which are never cut again.

snapshots/<name>/manifest.parquet  the samples of then, in the rank order of then
snapshots/<name>/rejects.parquet   the images of then that gave no sample, and why
snapshots/<name>/snapshot.json     what it is; created once and last: without it there is none

What is taken down is in no snapshot from that moment on, and `catalog.dataset.compact` points the
rows at the shards that it writes. So ``rank`` is the place in the snapshot as it was taken, and a
subset of a snapshot is told by these places: what was taken down since is missing from it, and
nothing moves up.
"""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog import storage, tables
from catalog.dataset import busy
from catalog.dataset.fold import MANIFEST, REJECTS
from catalog.errors import CatalogError, DatasetError
from catalog.sample import canonical_json
from catalog.source.ranking import parse_subset, subset_ranks

if TYPE_CHECKING:
    from catalog.dataset.dataset import Dataset

SNAPSHOTS = "snapshots"
RECORD = "snapshot.json"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a snapshot was when it was taken.

    Attributes:
        name: letters, digits and ``-_.:``.
        generation: the last of the plan.
        source: name, below the dataset, of the source as it was.
        folded: names the units and the source; the manifest's own.
        images: found by the scan.
        samples: kept.
        rejects: images that gave no sample, by status.
        view: fingerprint of the samples.
        taken: time, ISO 8601 in UTC.
    """

    name: str
    generation: int
    source: str
    folded: str
    images: int
    samples: int
    rejects: dict[str, int]
    view: str
    taken: str

    @property
    def time(self) -> datetime:
        """When it was taken."""
        return datetime.fromisoformat(self.taken)


def take_snapshot(dataset: "Dataset", name: str) -> Snapshot:
    """Keep the dataset as it is now under a name; the same again is no harm.

    Raises:
        DatasetError: the name will not do or stands for something else, the dataset is not
            finished, or a compaction runs.
    """
    check_name(name)
    uri = dataset.uri
    view = dataset.view()
    if dataset.pending() or not dataset.is_folded():
        raise DatasetError(f"{uri} is not finished: run its build command again")
    _refuse_compaction(uri)
    if storage.exists(_path(uri, name, RECORD)):
        return _same(dataset, name)
    before = storage.read_bytes(dataset.path(MANIFEST))
    rejects = dataset.rejects()
    folded = tables.read_metadata(dataset.path(MANIFEST))
    ranks = pa.array(np.arange(len(view)), pa.int64())
    rows = view.table.set_column(view.table.schema.get_field_index("rank"), "rank", ranks)
    storage.write_atomic(_path(uri, name, MANIFEST), tables.to_parquet(rows, folded))
    storage.write_atomic(_path(uri, name, REJECTS), tables.to_parquet(rejects, folded))
    made = Snapshot(
        name=name,
        generation=len(dataset.plans.names) - 1,
        source=dataset.plans.source,
        folded=folded["folded"],
        images=tables.open_parquet(dataset.source).metadata.num_rows,
        samples=len(view),
        rejects=dict(sorted(tables.count_values(rejects["status"]).items())),
        view=view.fingerprint,
        taken=datetime.now(UTC).isoformat(timespec="microseconds"),
    )
    _refuse_compaction(uri)
    if storage.read_bytes(dataset.path(MANIFEST)) != before:
        raise DatasetError(f"{uri} changed while snapshot {name} was taken: take it again")
    try:
        storage.create_once(_path(uri, name, RECORD), canonical_json(asdict(made)) + b"\n")
    except FileExistsError:
        return _same(dataset, name)
    _refuse_compaction(uri)  # one that began since may not have seen it; again, it will
    return made


def list_snapshots(dataset: str) -> list[Snapshot]:
    """Return the snapshots of the dataset at a URI, the oldest first."""
    found = [read_snapshot(dataset, name) for name in snapshot_names(dataset)]
    return sorted(found, key=lambda one: (one.time, one.name))


def snapshot_names(dataset: str) -> list[str]:
    """Return the names of the snapshots by the alphabet, also of one whose record is damaged."""
    names = storage.list_names(storage.join(dataset, SNAPSHOTS))
    return [
        name
        for name in names
        if _NAME.fullmatch(name) and storage.exists(_path(dataset, name, RECORD))
    ]


def read_snapshot(dataset: str, name: str) -> Snapshot:
    """Return a snapshot's record; raises DatasetError where there is none, or it is damaged."""
    uri = _path(dataset, name, RECORD)
    known = _NAME.fullmatch(name) is not None and storage.exists(uri)
    if not known:
        have = ", ".join(one.name for one in list_snapshots(dataset)) or "none yet"
        raise DatasetError(
            f"no snapshot {name!r} in {dataset} (there is: {have}); as it is now it is kept with: "
            f"snapshot {dataset} NAME"
        )
    try:
        return Snapshot(**json.loads(storage.read_bytes(uri)))
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{uri} is damaged: {error}") from error


def read_samples(
    dataset: str, name: str, subset: str | None = None, columns: list[str] | None = None
) -> pa.Table:
    """Return rows of a snapshot's manifest, also of what was taken down and is not compacted yet.

    Args:
        dataset: URI.
        name: of the snapshot.
        subset: named as subsets are: ``1k``, ``10k-stratified-7``; None for all.
        columns: to read; with ``rank`` where a subset is asked for.

    Raises:
        DatasetError: there is no such snapshot, or it has fewer samples.
    """
    record = read_snapshot(dataset, name)
    rows = tables.read_table(_path(dataset, name, MANIFEST), columns).replace_schema_metadata(None)
    if subset is None:
        return rows
    try:
        count, policy, seed = parse_subset(subset)
        chosen = subset_ranks(record.samples, count, policy=policy, seed=seed)
    except CatalogError as error:
        raise DatasetError(f"no subset {subset!r} of snapshot {name} of {dataset}: {error}") from (
            error
        )
    return rows.filter(pc.is_in(rows["rank"], pa.array(chosen, pa.int64())))


def read_rejects(dataset: str, name: str) -> pa.Table:
    """Return the images of a snapshot that gave no sample; raises as `read_snapshot` does."""
    read_snapshot(dataset, name)
    return tables.read_table(_path(dataset, name, REJECTS)).replace_schema_metadata(None)


def choose_old(
    found: Sequence[Snapshot],
    *,
    keep: int,
    older_than: timedelta = timedelta(0),
    protect: Collection[str] = (),
    now: datetime | None = None,
) -> list[Snapshot]:
    """Return the snapshots that may go, the oldest first.

    Args:
        found: all there are, the oldest first.
        keep: how many of the newest stay.
        older_than: what is younger stays.
        protect: names of those that stay.
        now: the time; None for the clock's.

    Raises:
        DatasetError: a protected one is not there.
    """
    if missing := sorted(set(protect) - {one.name for one in found}):
        raise DatasetError(f"no snapshot {missing[0]!r} to protect: nothing is dropped")
    limit = (now or datetime.now(UTC)) - older_than
    old = found[: max(len(found) - keep, 0)]
    return [one for one in old if one.time <= limit and one.name not in protect]


def drop_snapshot(dataset: str, name: str) -> None:
    """Delete a snapshot's files; the samples that it alone had go when the dataset is compacted."""
    for file in (RECORD, REJECTS, MANIFEST):  # without the first it is none
        storage.remove(_path(dataset, name, file))
    folder = storage.local_path(storage.join(dataset, SNAPSHOTS, name))
    if folder is not None and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def manifest_of(name: str) -> str:
    """Return the path, below the dataset, of a snapshot's manifest."""
    return f"{SNAPSHOTS}/{name}/{MANIFEST}"


def rejects_of(name: str) -> str:
    """Return the path, below the dataset, of a snapshot's rejects."""
    return f"{SNAPSHOTS}/{name}/{REJECTS}"


def _same(dataset: "Dataset", name: str) -> Snapshot:
    """Return the snapshot that has a name already, where it is what the dataset is now."""
    record = read_snapshot(dataset.uri, name)
    folded = tables.read_metadata(dataset.path(MANIFEST))["folded"]
    shown = dataset.view(snapshot=name).fingerprint
    if record.folded != folded or shown != dataset.view().fingerprint:
        raise DatasetError(
            f"snapshot {name!r} of {dataset.uri} was taken at {record.taken} and holds something "
            "else: a snapshot is never changed, so take another name"
        )
    return record


def check_name(name: str) -> None:
    """Check that a snapshot can be named so; raises DatasetError."""
    if not _NAME.fullmatch(name):
        raise DatasetError(
            f"{name[:100]!r} is no name of a snapshot: up to 100 letters, digits and -_.: that "
            "begin with a letter, a digit or _"
        )
    try:
        parse_subset(name)
    except CatalogError:
        if name != "all":
            return
    raise DatasetError(f"{name!r} would be read as a subset: name the snapshot otherwise")


def _refuse_compaction(dataset: str) -> None:
    if busy.stands(dataset, busy.COMPACT):
        raise DatasetError(f"a compaction runs or did not end: compact {dataset}, and then go on")


def _path(dataset: str, name: str, file: str) -> str:
    return storage.join(dataset, SNAPSHOTS, name, file)
