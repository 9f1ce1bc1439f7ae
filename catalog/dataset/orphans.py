"""Files of units that no commit names: left by an attempt that lost or died after publishing.

Plain readers take every ``shards/*.tar`` for samples, so such a file doubles those of its unit.
"""

import pyarrow.compute as pc

from catalog import storage, tables
from catalog.dataset import busy, commits
from catalog.dataset.commits import UNIT_FILE
from catalog.dataset.dataset import MANIFEST, SUBSETS, Dataset
from catalog.dataset.snapshots import manifest_of, snapshot_names
from catalog.errors import DatasetError


def named_files(dataset: Dataset) -> set[str]:
    """Return the names of the files below ``shards/`` that the commits name."""
    return {file.name for one in commits.read_commits(dataset.uri) for file in one.files}


def check_views(dataset: Dataset, named: set[str]) -> None:
    """Check that manifest, subsets and snapshots name no other shards than the commits do.

    Args:
        dataset: that may be unfinished.
        named: what `named_files` returns.

    Raises:
        DatasetError: they do, or a compaction stands between two of its steps.
    """
    if busy.stands(dataset.uri, busy.COMPACT):
        raise DatasetError(
            "a compaction runs or did not end, and needs what no commit names: "
            f"compact {dataset.uri}"
        )
    views = [MANIFEST] if storage.exists(dataset.path(MANIFEST)) else []
    views += [f"{SUBSETS}/{name}.parquet" for name in dataset.subsets()]
    views += [manifest_of(name) for name in snapshot_names(dataset.uri)]
    for view in views:
        if others := shards_of(dataset.path(view)) - named:
            raise DatasetError(
                f"{view} names {len(others):,} shards that no commit names (first: "
                f"{min(others)}), as a compaction that was killed or a lost commit leaves it: run "
                f"its build command if a unit is pending, then compact {dataset.uri}"
            )


def shards_of(uri: str) -> set[str]:
    """Return the shards that a manifest, subset or snapshot names."""
    found: set[str] = set()
    with tables.open_parquet(uri) as file:
        for at in range(file.num_row_groups):
            column = file.read_row_group(at, columns=["shard"])["shard"]
            found.update(pc.unique(column).to_pylist())
    return found


def find_orphans(dataset: Dataset) -> list[str]:
    """Return the names below ``shards/`` of unit files, and of any tars, that no commit names."""
    present = storage.list_names(dataset.path(commits.SHARDS))  # before the commits are read
    named = named_files(dataset)
    return [name for name in present if name not in named and _is_read(name)]


def sweep_orphans(dataset: Dataset) -> int:
    """Delete the unit files that no commit names, where all units are committed; return how many.

    While a compaction runs, or stopped and is to be run again, nothing is deleted.
    """
    present = storage.list_names(dataset.path(commits.SHARDS))
    # In this order: what a compaction or a new generation publishes later is not in the list.
    if busy.stands(dataset.uri, busy.COMPACT) or Dataset.open(dataset.uri).pending():
        return 0
    named = named_files(dataset)
    unnamed = [name for name in present if name not in named and UNIT_FILE.fullmatch(name)]
    if not unnamed:
        return 0
    try:
        check_views(dataset, named)
    except DatasetError:
        return 0
    for name in unnamed:
        storage.remove(dataset.path(commits.SHARDS, name))
    return len(unnamed)


def _is_read(name: str) -> bool:
    ours = UNIT_FILE.fullmatch(name) is not None
    return ours or (name.endswith(".tar") and not name.startswith("."))
