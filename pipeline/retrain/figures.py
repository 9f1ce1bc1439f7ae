"""What the gate compares, counted from snapshots: nothing here reads an image."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catalog import lookup, tables
from catalog.dataset.dataset import Dataset
from pipeline.ledger.diff import diff
from pipeline.retrain.gate import Figures
from pipeline.retrain.promotions import Promotion

_FAILED = "failed:"


def of(snapshot: Mapping[str, Any], adherence: Sequence[float]) -> Figures:
    """Return the figures of what a night found; what was taken down is no image of it.

    Args:
        snapshot: what its stage of that name recorded.
        adherence: of its run, a seed each.
    """
    rejects: Mapping[str, int] = snapshot["rejects"]
    return Figures(
        adherence=tuple(adherence),
        images=snapshot["samples"] + sum(rejects.values()),
        samples=snapshot["samples"],
        failed=sum(n for status, n in rejects.items() if status.startswith(_FAILED)),
    )


def of_what_came(dataset: str, night: str, before: Promotion | None) -> Figures | None:
    """Return the figures of the images alone that the promoted dataset did not know.

    Args:
        dataset: URI, as it is now.
        night: whose snapshot it is.
        before: what is promoted; None, or one of another dataset, tells nothing.
    """
    if before is None or before.dataset != dataset:
        return None
    opened = Dataset.open(dataset)
    sources = opened.plans.sources
    earlier = tables.read_table(opened.path(sources[before.generation - 1]), ["uri", "sha256"])
    rows = tables.read_table(opened.source, ["uri", "sha256"])
    known = lookup.is_in(rows["sha256"], earlier["sha256"].drop_null())
    unread = pc.and_(pc.is_null(rows["sha256"]), lookup.is_in(rows["uri"], earlier["uri"]))
    came = rows.filter(pc.invert(pc.or_(known, unread)))
    hashes = came["sha256"].drop_null()
    kept = opened.view(snapshot=night).table["sha256"]
    rejects = opened.rejects()
    failed = rejects.filter(pc.starts_with(rejects["status"], _FAILED))
    mine = pc.or_(
        pc.fill_null(lookup.is_in(failed["sha256"], hashes), False),
        lookup.is_in(failed["uri"], came["uri"]),
    )
    return Figures(
        images=came.num_rows,
        samples=_count(lookup.is_in(kept, hashes)),
        failed=_count(mine),
    )


def _count(mask: pa.ChunkedArray) -> int:
    return int(pc.sum(mask).as_py() or 0)


def changes(dataset: str, night: str, before: Promotion | None) -> dict[str, Any] | None:
    """Count what came, changed and went, and why, since what is promoted; None where nothing is.

    Nothing is compared with a dataset by another recipe, of which every sample is another.
    """
    if before is None or before.dataset != dataset:
        return None
    found = diff(Dataset.open(dataset), before.night, night)
    return {
        "added": len(found.added),
        "changed": len(found.changed),
        "removed": len(found.removed),
        "why": found.reasons,
    }
