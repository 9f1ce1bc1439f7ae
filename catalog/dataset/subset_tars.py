"""A subset as a list of plain tars: whole shards by name, and copies of the rest.

A subset of the best by rank ends inside one shard, so what is copied for it is less than a shard. A
stratified subset takes some of every shard and is copied whole. Copies lie below
``subsets/<name>/`` and are named by what they hold, so they tell whether they are still right.
"""

import re
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from catalog import storage
from catalog.dataset import commits
from catalog.dataset.busy import CARD
from catalog.dataset.dataset import SUBSETS, Dataset, View
from catalog.dataset.materialize import materialize

_COPY = re.compile(r"[0-9a-f]{16}-\d+\.tar")  # what is named otherwise is somebody's own


def split(everything: View, subset: View) -> tuple[list[str], View]:
    """Return the shards that a subset holds whole, in rank order, and a view of the rest of it."""
    held, full = (_count_by_shard(view.table) for view in (subset, everything))
    whole = sorted(shard for shard, number in held.items() if number == full[shard])
    inside = pc.is_in(subset.table["shard"], pa.array(whole, pa.string()))
    rest = subset.table.filter(pc.invert(inside))
    return whole, View(subset.dataset, subset.name, rest)


def write_tars(everything: View, subset: View) -> tuple[list[str], int]:
    """Make a subset readable as tars; return their paths in the dataset and the samples copied.

    Raises:
        CorruptSampleError: a stored sample is not the committed one.
    """
    whole, rest = split(everything, subset)
    folder = storage.join(rest.dataset, SUBSETS, rest.name)
    with tempfile.TemporaryDirectory(prefix=f"{CARD}.", dir=_beside(rest.dataset)) as scratch:
        for _ in materialize(rest, Path(scratch)):
            pass
        copies = sorted(Path(scratch).glob("*.tar"))
        names = [_name(rest, path.name) for path in copies]
        present = storage.list_names(folder)
        for path, name in zip(copies, names, strict=True):
            if name not in present:
                storage.publish(path, storage.join(folder, name))
    _delete_others(rest, names)
    shards = [f"{commits.SHARDS}/{shard}" for shard in whole]
    return shards + [f"{SUBSETS}/{rest.name}/{name}" for name in names], len(rest)


def delete_stale(dataset: Dataset) -> int:
    """Delete the copies that no longer hold just what their subset needs; return how many."""
    everything = dataset.view()
    deleted = 0
    for name in dataset.subsets():
        _, rest = split(everything, dataset.view(name))
        present = storage.list_names(dataset.path(SUBSETS, name))
        deleted += _delete_others(rest, [one for one in present if one.startswith(_name(rest, ""))])
    return deleted


def _name(rest: View, name: str) -> str:
    return f"{rest.fingerprint[:16]}-{name}"


def _delete_others(rest: View, names: list[str]) -> int:
    folder = storage.join(rest.dataset, SUBSETS, rest.name)
    present = storage.list_names(folder)
    others = [name for name in present if name not in names and _COPY.fullmatch(name)]
    for name in others:
        storage.remove(storage.join(folder, name))
    return len(others)


def _count_by_shard(table: pa.Table) -> dict[str, int]:
    counted = table["shard"].value_counts()
    return dict(zip(*(counted.field(at).to_pylist() for at in (0, 1)), strict=True))


def _beside(uri: str) -> str | None:
    """Return a folder where a file can be made that is then linked into the dataset."""
    root = storage.local_path(uri)
    if root is None:
        return None
    (root / "tmp").mkdir(exist_ok=True)
    return str(root / "tmp")
