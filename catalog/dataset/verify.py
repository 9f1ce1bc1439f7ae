"""Does a dataset hold what its commits say? And do two datasets hold the same bytes?"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

from catalog import storage, tables
from catalog.dataset import busy, commits
from catalog.dataset.agreement import Places, disagreements, unit_agrees
from catalog.dataset.commits import Commit, StoredFile
from catalog.dataset.dataset import MANIFEST, Dataset, unpack_verified
from catalog.dataset.latents import find_latents
from catalog.dataset.orphans import find_orphans
from catalog.errors import CatalogError
from catalog.sample import OK

NOT_COMPARED = ("latents", "logs", "scan", "snapshots", "tmp")
"""Folders that may differ between equal builds: what one base makes of the samples, times, what was
kept of before, and what killed attempts left."""

_ORPHAN = "no commit names it, and plain readers take each tar there for samples; see gc"

_UNFOLDED = (
    f"{MANIFEST} lacks what was tried again: run retry-failed, or the build, once more, and then "
    "verify it"
)

_COMPACTING = "a compaction runs or did not end: compact the dataset again, and then verify it"

_LOST = pa.schema(
    [
        *(tables.ROWS.field(name) for name in ("sha256", "status", "value", "threshold")),
        pa.field("unit", pa.int32()),
    ]
)

_THREADS = 4
_CHUNK = 1 << 20


def verify(dataset: Dataset, *, quick: bool = False) -> list[str]:
    """Re-hash every committed file and sample, latents too, in one pass over the bytes.

    Manifest, plan, source, rejects, subsets and snapshots are compared with each other and with the
    commits.

    Args:
        dataset: a finished one.
        quick: ask for the files' sizes in place of their bytes. What is missing, cut off or grown
            is found, and all that tables say is compared; a flipped bit is not found.

    Returns:
        What is wrong, a line each.

    Raises:
        DatasetError: the dataset is not finished.
    """
    shown = dataset.sample_count()
    places = Places(dataset)
    done = commits.read_commits(dataset.uri)
    compacting = busy.stands(dataset.uri, busy.COMPACT)
    faults = [_COMPACTING] if compacting else []
    with ThreadPoolExecutor(_THREADS) as pool:
        checked = list(pool.map(partial(check_commit, dataset, places, quick=quick), done))
    faults += [fault for found in checked for fault in found.faults]
    faults += [
        fault for folder in find_latents(dataset.uri) for fault in folder.faults(quick=quick)
    ]
    faults += [f"{commits.SHARDS}/{name}: {_ORPHAN}" for name in find_orphans(dataset)]
    missing = set(dataset.unit_ids) - {commit.unit_id for commit in done}
    faults += [f"unit {unit} of the plan has no commit" for unit in sorted(missing)]
    if len(dataset.plans.names) > 1 and not dataset.is_folded():
        return [*faults, _UNFOLDED]
    kept, listed = sum(commit.counts.get(OK, 0) for commit in done), places.table.num_rows
    if dataset.plans.grown:  # they hold what changed or went, too
        kept = min(kept, listed)
    if not shown <= kept <= listed:  # they differ by what was taken down and not compacted yet
        faults.append(f"the commits hold {kept} samples, the manifest {listed}")
    if others := places.shards - {commit.shard.name for commit in done}:
        faults.append(f"{MANIFEST} names shards that no commit names: {_some(others)}")
    elif not compacting:
        stale = [one.name for one in checked if one.lost is not None and not one.agrees]
        faults += [f"{MANIFEST} and the rows of {_some(stale)} differ"] if stale else []
    lost = [one.lost for one in checked if one.lost is not None]
    if not compacting and not missing and len(lost) == len(checked):
        faults += disagreements(dataset, places, pa.concat_tables([_LOST.empty_table(), *lost]))
    return faults


def differences(one: str, other: str) -> list[str]:
    """Compare two local datasets byte by byte; return what differs, a line each.

    Logs, and temporary files that killed writers left, are no part of a dataset.
    """
    left, right = (_files(uri) for uri in (one, other))
    lines = [f"only in {one}: {name}" for name in sorted(left.keys() - right.keys())]
    lines += [f"only in {other}: {name}" for name in sorted(right.keys() - left.keys())]
    for name in sorted(left.keys() & right.keys()):
        if storage.sha256_file(left[name]) != storage.sha256_file(right[name]):
            lines.append(f"bytes differ: {name}")
    return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was found in the files of a unit.

    Attributes:
        name: of its shard.
        faults: what is wrong with them, a line each.
        lost: its rows that are no samples, with its index; None where its rows cannot be trusted.
        agrees: whether the manifest places its samples where its rows do.
    """

    name: str
    faults: list[str]
    lost: pa.Table | None
    agrees: bool


def check_commit(
    dataset: Dataset, places: Places, commit: Commit, *, quick: bool = False
) -> Checked:
    """Re-hash one unit's files and samples; `quick` looks at the files' sizes alone."""
    placed = places.of(commit.shard.name)
    check = partial(_check_file, dataset, quick=quick)
    if quick:
        faults = check(commit.shard)
    else:
        faults = list(_check_shard(dataset, commit.shard, placed.to_pylist()))
    if commit.held is not None:
        faults += check(commit.held)
    lost, agrees = None, False
    if found := check(commit.rows):
        faults += found
    else:
        rows = tables.read_table(dataset.path(commits.SHARDS, commit.rows.name))
        rows = rows.replace_schema_metadata(None)
        rows = rows.append_column("unit", pa.array([commit.index] * rows.num_rows, pa.int32()))
        lost = rows.filter(pc.not_equal(rows["status"], OK)).select(_LOST.names).cast(_LOST)
        agrees = unit_agrees(placed, dataset.plans.current(rows))
    return Checked(name=commit.shard.name, faults=faults, lost=lost, agrees=agrees)


def _check_shard(dataset: Dataset, file: StoredFile, rows: list[dict[str, Any]]) -> Iterator[str]:
    """Hash a tar and, on the way, its samples; those are told only where the tar itself is good."""
    digest, at, damaged = hashlib.sha256(), 0, []
    try:
        with storage.open_binary(dataset.path(commits.SHARDS, file.name)) as stream:
            for row in rows:
                at += _pass(stream, digest, row["offset"] - at)
                block = stream.read(row["length"]) if at == row["offset"] else b""
                digest.update(block)
                at += len(block)
                try:
                    unpack_verified(block, row)
                except CatalogError as error:
                    damaged.append(str(error))
            _pass(stream, digest, None)
    except OSError as error:
        yield f"{file.name}: {type(error).__name__}: {error}"
        return
    if digest.hexdigest() == file.sha256:
        yield from damaged
    else:
        told = f"; {len(damaged)} of its {len(rows)} samples are damaged" if damaged else ""
        yield f"{file.name}: sha256 {digest.hexdigest()}, committed {file.sha256}{told}"


def _pass(stream: IO[bytes], digest: Any, length: int | None) -> int:
    """Hash the next `length` bytes, or all that are left; return how many there were."""
    passed = 0
    while length is None or passed < length:
        chunk = stream.read(_CHUNK if length is None else min(_CHUNK, length - passed))
        if not chunk:
            break
        digest.update(chunk)
        passed += len(chunk)
    return passed


def _check_file(dataset: Dataset, file: StoredFile, *, quick: bool) -> list[str]:
    fault = file.fault(dataset.path(commits.SHARDS, file.name), quick=quick)
    return [] if fault is None else [f"{file.name}: {fault}"]


def _some(names: Iterable[str]) -> str:
    first, *more = sorted(names)
    return f"{first} and {len(more):,} more" if more else first


def _files(uri: str) -> dict[str, str]:
    root = storage.local_path(uri)
    if root is None or not root.is_dir():
        raise CatalogError(f"{uri} is no local dataset folder to compare")
    found = {}
    for folder, below, names in os.walk(root):
        if folder == os.fspath(root):
            below[:] = [name for name in below if name not in NOT_COMPARED]
        for name in (name for name in names if not storage.is_temporary(name)):
            path = os.path.join(folder, name)
            found[os.path.relpath(path, root)] = path
    return found
