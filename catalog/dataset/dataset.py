"""A dataset folder: the frozen plan, the commits, and the views folded from them.

recipe.json                 the resolved recipe and its fingerprint
source.parquet              one row an image found, ranked; rejected rows too
plan.parquet                the images to annotate: a row group is a unit
plans/<generation>.parquet  what was planned after it: images that failed, came, or changed
sources/<hash>.parquet      the source as it was found later, where it was scanned again
shards/<index>-<id>.tar     samples in rank order, and <index>-<id>.parquet with a row an image;
                            <index>-<id>.held: maps of images that a threshold rejected
commits/<unit_id>.json      the truth; all below is folded from it and can be made again
manifest.parquet            the kept samples in rank order
rejects.parquet             every image that gave no sample, and why
subsets/<name>.parquet      views: rows of the manifest
snapshots/<name>/           manifest and rejects as they once were, and snapshot.json
tombstones/<hash>.json      keys that were taken down: in no view from then on
logs/                       what ran when; the only files that differ between equal builds
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int32

from catalog import storage, tables
from catalog.dataset import commits, snapshots, tombstones
from catalog.dataset.block_cache import BlockCache
from catalog.dataset.fold import MANIFEST as MANIFEST
from catalog.dataset.fold import REJECTS as REJECTS
from catalog.dataset.fold import Fold
from catalog.dataset.moved import Moves
from catalog.dataset.plans import PLAN as PLAN
from catalog.dataset.plans import SOURCE as SOURCE
from catalog.dataset.plans import Plans, never_planned
from catalog.dataset.shards import unpack
from catalog.errors import CatalogError, CorruptSampleError, DatasetError
from catalog.sample import OK, REMOVED, Sample, sha256_hex
from catalog.source import ranking

RECIPE = "recipe.json"
SUBSETS = "subsets"

_TRIED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Counts from committed files alone.

    Attributes:
        units: units in the plan.
        units_done: units committed.
        images: images found by the scan, the last one where there were several.
        samples: images kept so far; of a dataset that grew, those of the last fold and what was
            committed since.
        rejects: images that gave no sample, by status; ``removed`` are those taken down.
        shard_bytes: size of the committed tars.
        mismatches: attempts in other environments that gave other bytes.
    """

    units: int
    units_done: int
    images: int
    samples: int
    rejects: dict[str, int]
    shard_bytes: int
    mismatches: int


TO_READ = ("key", "rank", "shard", "offset", "length", "block_sha256", "width", "height")
"""Columns of the manifest by which samples are found and told apart; the rest is in the shards."""


class View:
    """An ordered choice of samples: rows, no copies. Picklable; reads shards by offset.

    Args:
        dataset: URI of the dataset.
        name: of the choice.
        table: its rows of the manifest.
        cache: where samples of remote shards are kept; None keeps none.
    """

    def __init__(
        self, dataset: str, name: str, table: pa.Table, cache: BlockCache | None = None
    ) -> None:
        self.dataset = dataset
        self.name = name
        self.table = table
        self.cache = cache

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the choice: a hash over the blocks, in order; 32 hex characters."""
        found = hashlib.sha256()
        for piece in self.table["block_sha256"].chunks:
            found.update("".join(piece.to_pylist()).encode())
        return found.hexdigest()[:32]

    @cached_property
    def conditions(self) -> tuple[str, ...]:
        """Names of the condition maps that each sample holds, by the first that is not damaged.

        Raises:
            CorruptSampleError: the first `_TRIED` are all damaged.
        """
        last = min(len(self), _TRIED) - 1
        for index in range(last):
            with suppress(CorruptSampleError):
                return tuple(sorted(self.read(index).conditions))
        return tuple(sorted(self.read(last).conditions)) if len(self) else ()

    def keys(self) -> list[str]:
        """Return the key of each row; no shard is read."""
        keys: list[str] = self.table["key"].to_pylist()
        return keys

    def row_sizes(self) -> Int32[np.ndarray, "n 2"] | None:
        """Return (height, width) in pixels of every row as stored; None where the table lacks them.

        No shard is read.
        """
        if not {"height", "width"} <= set(self.table.column_names):
            return None
        sides = [self.table[name] for name in ("height", "width")]
        if any(side.null_count for side in sides):
            return None
        return np.stack([side.to_numpy().astype(np.int32) for side in sides], axis=1)

    def read(self, index: int) -> Sample:
        """Read the sample at `index` of this view, also where a compaction moved it meanwhile.

        Raises:
            CorruptSampleError: the bytes differ from the committed hash, or hold another key; or a
                compaction deleted it.
        """
        row = self.table.slice(index, 1).to_pylist()[0]
        try:
            return unpack_verified(self.read_block(row), row)
        except FileNotFoundError:
            moved = self._moves.find(row)
            if moved is None:
                raise
        return unpack_verified(self.read_block(moved), moved)

    @cached_property
    def _moves(self) -> Moves:
        return Moves(self.dataset)

    @property
    def remote(self) -> bool:
        """Whether the shards are on no disk of this machine."""
        return storage.local_path(self.dataset) is None

    def cached(self, folder: str | None) -> "View":
        """Return the view, with what it reads of remote shards kept in a local folder.

        A local dataset's view, or without a folder, is returned as it is.

        Raises:
            StorageError: the folder is remote.
        """
        if folder is None or not self.remote:
            return self
        return View(self.dataset, self.name, self.table, BlockCache(folder))

    def read_block(self, row: dict[str, Any]) -> bytes:
        """Return the tar bytes of one row, unverified; an OSError names the shard."""
        if self.cache is None:
            return self._fetch(row)
        return self.cache.read(row["block_sha256"], partial(self._fetch, row))

    def _fetch(self, row: dict[str, Any]) -> bytes:
        uri = storage.join(self.dataset, commits.SHARDS, row["shard"])
        try:
            return storage.read_bytes(uri, row["offset"], row["length"])
        except OSError as error:
            error.filename = error.filename or uri  # reads, unlike open, do not tell
            raise


def unpack_verified(block: bytes, row: dict[str, Any]) -> Sample:
    """Unpack a block that must be the one `row` was written for; raises CorruptSampleError."""
    where = f"{row['shard']} at byte {row['offset']:,}"
    if sha256_hex(block) != row["block_sha256"]:
        raise CorruptSampleError(f"{where}: the bytes of {row['key']} changed after the commit")
    sample = unpack(block)
    if sample.key != row["key"]:
        raise CorruptSampleError(f"{where}: holds {sample.key}, the manifest says {row['key']}")
    return sample


class Dataset:
    """A dataset folder, opened for reading."""

    def __init__(self, uri: str, recipe: dict[str, Any]) -> None:
        self.uri = uri
        self.recipe: dict[str, Any] = recipe["recipe"]
        self.fingerprint: str = recipe["fingerprint"]
        self.format: int = recipe.get("format", 1)
        """Of the stored bytes; see `pipeline.recipe.recipe.FORMAT`."""
        self.versions: dict[str, int] = recipe.get("versions", {})
        """Of the code that made each condition, where it is not the first."""

    @classmethod
    def open(cls, uri: str) -> "Dataset":
        """Open the dataset at `uri`; raises DatasetError where there is none."""
        uri = uri.rstrip("/")
        try:
            return cls(uri, json.loads(storage.read_bytes(storage.join(uri, RECIPE))))
        except (FileNotFoundError, NotADirectoryError):
            message = (
                f"no dataset at {uri}: it has no {RECIPE}; make one with: build RECIPE --out {uri}"
            )
            raise DatasetError(message) from None
        except (KeyError, ValueError) as error:
            raise DatasetError(f"{uri}/{RECIPE} is damaged: {error}") from error

    def path(self, *names: str) -> str:
        """Return the URI of a file of this dataset."""
        return storage.join(self.uri, *names)

    @cached_property
    def plans(self) -> Plans:
        """The plan in all its generations, as they were when it was first asked for."""
        return Plans(self.uri)

    @property
    def unit_ids(self) -> list[str]:
        """Ids of the planned units of all generations, in order."""
        return self.plans.unit_ids

    def pending(self) -> list[int]:
        """Return the indices of the units that have no commit yet."""
        done = commits.committed_ids(self.uri)
        return [index for index, unit in enumerate(self.unit_ids) if unit not in done]

    def status(self) -> Status:
        """Count what is committed, while a build runs or after."""
        done = commits.read_commits(self.uri)
        found = tables.open_parquet(self.source).metadata.num_rows
        counts = self._count_grown(done) if self.plans.grown else self._count(done)
        return Status(
            units=len(self.unit_ids),
            units_done=len(done),
            images=found,
            samples=counts.pop(OK, 0),
            rejects=dict(sorted(counts.items())),
            shard_bytes=sum(commit.shard.bytes for commit in done),
            mismatches=commits.count_mismatches(self.uri),
        )

    @property
    def source(self) -> str:
        """URI of the table of all images found, as the source is now."""
        return self.path(self.plans.source)

    def source_metadata(self) -> dict[str, Any]:
        """Return what was scanned for it, how many had a caption, and what was passed over."""
        return tables.read_metadata(self.source)

    def sample_count(self) -> int:
        """Return how many samples `view` shows, by their keys alone; raises as that does."""
        return int(self._present(tables.read_table(self._manifest(), ["key"])).num_rows)

    def first(self, count: int) -> pa.Table:
        """Return the rows of the best `count` samples, without reading those of all others."""
        buried = len(tombstones.removed_keys(self.uri))
        return self._present(tables.read_first(self._manifest(), count + buried)).slice(0, count)

    def view(
        self,
        subset: str | None = None,
        snapshot: str | None = None,
        *,
        columns: Sequence[str] | None = None,
    ) -> View:
        """Return all samples in rank order, or a subset's; raises DatasetError if absent.

        Args:
            subset: its name; of a snapshot it is cut here, whether or not the dataset has it now.
            snapshot: name of one, to see the dataset as it was then; None for now.
            columns: of the manifest to hold beside the key; `TO_READ` for a view that is only read.
                None for all.
        """
        wanted = None if columns is None else list(dict.fromkeys(["key", *columns]))
        if snapshot is not None:
            name = snapshot if subset is None else f"{snapshot}/{subset}"
            rows = snapshots.read_samples(self.uri, snapshot, subset, wanted)
            return View(self.uri, name, self._present(rows))
        if subset is None:
            return View(self.uri, "all", self._present(tables.read_table(self._manifest(), wanted)))
        names = self.subsets()
        if subset not in names:
            have = ", ".join(names) or "none yet"
            raise DatasetError(
                f"no subset {subset!r} in {self.uri} (there is: {have}); "
                f"make it with: subset {self.uri} --sizes {subset}"
            )
        rows = tables.read_table(self._subset_uri(subset), wanted)
        return View(self.uri, subset, self._present(rows))

    def rejects(self, snapshot: str | None = None) -> pa.Table:
        """Return the images that gave no sample; what was taken down is not among them."""
        if snapshot is not None:
            return self._present(snapshots.read_rejects(self.uri, snapshot), by="sha256")
        return self._present(tables.read_table(self.path(REJECTS)), by="sha256")

    def subsets(self) -> list[str]:
        """Return the names of the subsets, smallest first."""
        names = storage.list_names(self.path(SUBSETS))
        stems = [name.removesuffix(".parquet") for name in names if name.endswith(".parquet")]
        return sorted(stems, key=_size_key)

    def snapshots(self) -> list[str]:
        """Return the names of the snapshots, the oldest first."""
        return [one.name for one in snapshots.list_snapshots(self.uri)]

    def write_subset(self, count: int, *, policy: ranking.Policy, seed: int) -> View:
        """Write a subset as a view; raises CatalogError where it is larger than the dataset."""
        name = ranking.subset_name(count, policy=policy, seed=seed)
        record = {"policy": policy, "seed": seed if policy != "top" else None, "size": count}
        return self._cut(name, record, count)

    def finalize(self, *, again: bool = False) -> bool:
        """Fold all commits into manifest and rejects; return whether anything had to be written.

        Subsets that were cut before the last generation was planned are cut again, by their sizes,
        policies and seeds, so that all of them nest.

        Args:
            again: whether units were committed since a fold that may stand there already.

        Raises:
            DatasetError: a planned unit has no commit.
        """
        if pending := self.pending():
            raise DatasetError(f"{len(pending)} of {len(self.unit_ids)} units are not committed")
        manifest = self.path(MANIFEST)
        fresh = not again and storage.exists(manifest) and self.is_folded()
        if not fresh:
            self.fold()
        return self._cut_again() or not fresh

    def is_folded(self) -> bool:
        """Say whether the manifest, which must be there, is that of all planned units."""
        return bool(tables.read_metadata(self.path(MANIFEST)).get("folded") == self._units_hash())

    def fold(self) -> None:
        """Write manifest and rejects anew from the commits, whatever stands there."""
        folded = self._units_hash()
        fold = Fold(self.path(commits.SHARDS), commits.read_commits(self.uri), self.plans)
        fold.write_rejects(self.path(REJECTS), source=self.source, folded=folded)
        by = self.recipe.get("ranking", "resolution")
        fold.write_manifest(self.path(MANIFEST), by=by, folded=folded)

    def _units_hash(self) -> str:
        named = [self.plans.source] if self.plans.grown else []
        return sha256_hex("".join([*sorted(self.unit_ids), *named]).encode())

    def _cut(self, name: str, record: dict[str, Any], count: int) -> View:
        policy, seed = record["policy"], record["seed"] or 0
        chosen = ranking.subset_ranks(self.sample_count(), count, policy=policy, seed=seed)
        view = View(self.uri, name, self.first(int(chosen[-1]) + 1).take(pa.array(chosen)))
        last = len(self.plans.names) - 1
        metadata = {"subset": record, **({"generation": last} if last else {})}
        storage.write_atomic(self._subset_uri(name), tables.to_parquet(view.table, metadata))
        return view

    def _cut_again(self) -> bool:
        """Cut the subsets of earlier generations again; say whether there were any."""
        last, changed = len(self.plans.names) - 1, False
        for name in self.subsets() if last else ():
            kept = tables.read_metadata(self._subset_uri(name))
            count = min(kept["subset"]["size"], self.sample_count()) if "subset" in kept else 0
            if count and kept.get("generation", 0) < last:
                self._cut(name, kept["subset"], count)
                changed = True
        return changed

    def _manifest(self) -> str:
        uri = self.path(MANIFEST)
        if not storage.exists(uri):
            raise DatasetError(f"{self.uri} is not finished: run its build command again")
        return uri

    def _present(self, table: pa.Table, by: str = "key") -> pa.Table:
        """Leave out what was taken down; read anew each time, so a removal holds at once."""
        keys = tombstones.removed_keys(self.uri)
        if not keys:
            return table
        return table.filter(pc.invert(pc.fill_null(tombstones.is_removed(table[by], keys), False)))

    def _count(self, done: Sequence[commits.Commit]) -> Counter[str]:
        """Count outcomes: of the scan, and of what is planned where its unit is committed."""
        source = tables.read_table(self.source, ["status", "rank"])
        counts = Counter(tables.count_values(source.filter(never_planned(source))["status"]))
        for commit in done:
            counts.update(commit.counts)
        counts.subtract(self.plans.replaced(done, tombstones.removed_keys(self.uri)))
        counts = +counts  # what was healed leaves no zero
        if buried := self._count_buried(done):
            counts[OK] -= buried
            counts[REMOVED] += buried
        return counts

    def _count_grown(self, done: Sequence[commits.Commit]) -> Counter[str]:
        """Count outcomes as the views have them, and those of units that are not folded yet."""
        counts = Counter(tables.count_values(tables.read_table(self.path(REJECTS))["status"]))
        shown = self.sample_count()
        counts[OK] += shown
        counts[REMOVED] += tables.open_parquet(self._manifest()).metadata.num_rows - shown
        if not self.is_folded():
            for commit in (one for one in done if one.index >= self.plans.firsts[-1]):
                counts.update(commit.counts)
        return +counts

    def _count_buried(self, done: Sequence[commits.Commit]) -> int:
        """Count the samples that were taken down and that the folded commits still hold."""
        manifest = self.path(MANIFEST)
        if not tombstones.removed_keys(self.uri) or not storage.exists(manifest):
            return 0
        last = self.plans.firsts[-1]
        if last and not self.is_folded():
            done = [commit for commit in done if commit.index < last]  # of what was folded
        return sum(commit.counts.get(OK, 0) for commit in done) - self.sample_count()

    def _subset_uri(self, name: str) -> str:
        return self.path(SUBSETS, f"{name}.parquet")


def _size_key(stem: str) -> tuple[int, str]:
    try:
        return ranking.parse_size(stem.partition("-")[0]), stem
    except CatalogError:
        return 0, stem
