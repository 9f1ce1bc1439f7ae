"""What differs between two states of a dataset: snapshots, or one and the dataset as it is now."""

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from catalog import lookup, spill
from catalog.dataset import snapshots, tombstones
from catalog.dataset.dataset import Dataset
from catalog.sample import REMOVED, sample_key

GONE = "gone from the source"
"""Why a sample is no more, where no rule rejected its image and nobody took it down."""

_COLUMNS = ["key", "block_sha256"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What came between two states; keys in rank order.

    Attributes:
        before: samples of the first.
        after: samples of the second.
        added: keys that the second has alone.
        removed: keys that the first has alone, each with why: a status, such as ``rejected:blur``,
            ``removed`` where it was taken down, or `GONE`.
        changed: keys that both have, with another image, map, caption or parameter.
    """

    before: int
    after: int
    added: list[str]
    removed: dict[str, str]
    changed: list[str]

    @property
    def reasons(self) -> dict[str, int]:
        """How many were removed, by why."""
        return dict(sorted(Counter(self.removed.values()).items()))


def diff(dataset: Dataset, first: str, second: str | None = None) -> Difference:
    """Compare two states of a dataset, by its tables alone; no sample is read.

    What was taken down after both were, and what a compaction has deleted since, is no difference.

    Args:
        dataset: that has the snapshots.
        first: name of a snapshot.
        second: name of another; None for the dataset as it is now.

    Raises:
        DatasetError: there is no such snapshot, or the dataset is not finished.
    """
    before = snapshots.read_samples(dataset.uri, first, columns=_COLUMNS)
    if second is None:
        after, rejects = dataset.view().table.select(_COLUMNS), dataset.rejects()
    else:
        after = snapshots.read_samples(dataset.uri, second, columns=_COLUMNS)
        rejects = snapshots.read_rejects(dataset.uri, second)
    at = lookup.index_in(before["key"], after["key"])
    there = pc.is_valid(at)
    same = pc.equal(
        spill.take_values(after["block_sha256"], at.filter(there).to_numpy()),
        before["block_sha256"].filter(there),
    )
    removed = before.filter(pc.invert(there))["key"].to_pylist()
    new = pc.invert(lookup.is_in(after["key"], before["key"]))
    return Difference(
        before=before.num_rows,
        after=after.num_rows,
        added=after.filter(new)["key"].to_pylist(),
        removed=_why(dataset, removed, rejects),
        changed=before["key"].filter(there).filter(pc.invert(same)).to_pylist(),
    )


def _why(dataset: Dataset, keys: list[str], rejects: pa.Table) -> dict[str, str]:
    buried = tombstones.removed_keys(dataset.uri)
    pairs = zip(rejects["sha256"].to_pylist(), rejects["status"].to_pylist(), strict=True)
    wanted = set(keys)
    found = {sample_key(sha256): status for sha256, status in pairs if sha256}
    found = {key: status for key, status in found.items() if key in wanted}
    return {key: REMOVED if key in buried else found.get(key, GONE) for key in keys}
