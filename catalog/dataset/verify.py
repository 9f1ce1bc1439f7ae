"""Does a dataset hold what its commits say? And do two datasets hold the same bytes?"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow.compute as pc

from catalog import storage, tables
from catalog.dataset import commits
from catalog.dataset.commits import Commit, StoredFile
from catalog.dataset.dataset import MANIFEST, Dataset, View, unpack_verified
from catalog.dataset.latents import find_latents
from catalog.dataset.orphans import find_orphans
from catalog.errors import CatalogError

NOT_COMPARED = ("latents", "logs", "scan", "tmp")
"""Folders that may differ between equal builds: what one base makes of the samples, times, and what
killed attempts left."""

_ORPHAN = "no commit names it, and plain readers take each tar there for samples; see gc"

_THREADS = 4


def verify(dataset: Dataset) -> list[str]:
    """Re-hash every committed file and sample, latents too; return what is wrong, a line each."""
    view = dataset.view()
    done = commits.read_commits(dataset.uri)
    with ThreadPoolExecutor(_THREADS) as pool:
        checked = pool.map(lambda commit: check_commit(dataset, view, commit), done)
        faults = [fault for found in checked for fault in found]
    faults += [fault for folder in find_latents(dataset.uri) for fault in folder.faults()]
    faults += [f"{commits.SHARDS}/{name}: {_ORPHAN}" for name in find_orphans(dataset)]
    missing = set(dataset.unit_ids) - {commit.unit_id for commit in done}
    faults += [f"unit {unit} of the plan has no commit" for unit in sorted(missing)]
    kept = sum(commit.counts.get("ok", 0) for commit in done)
    with tables.open_parquet(dataset.path(MANIFEST)) as manifest:
        listed = manifest.metadata.num_rows
    if not len(view) <= kept <= listed:  # they differ by what was taken down and not compacted yet
        faults.append(f"the commits hold {kept} samples, the manifest {listed}")
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


def check_commit(dataset: Dataset, view: View, commit: Commit) -> list[str]:
    """Re-hash one unit's files and samples; return what is wrong, a line each."""
    faults = [fault for file in commit.files if (fault := _check_file(dataset, file))]
    if not faults:
        faults.extend(_check_samples(view, commit.shard.name))
    return faults


def _check_file(dataset: Dataset, file: StoredFile) -> str | None:
    uri = dataset.path(commits.SHARDS, file.name)
    try:
        found = storage.sha256_file(uri)
    except OSError as error:
        return f"{file.name}: {type(error).__name__}: {error}"
    return None if found == file.sha256 else f"{file.name}: sha256 {found}, committed {file.sha256}"


def _check_samples(view: View, shard: str) -> Iterator[str]:
    for row in view.table.filter(pc.equal(view.table["shard"], shard)).to_pylist():
        try:
            unpack_verified(view.read_block(row), row)
        except CatalogError as error:
            yield str(error)


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
