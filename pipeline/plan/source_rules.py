"""Rules that judge the table of a scan: filters, near duplicates; and how a judgement is undone."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog import spill
from catalog.sample import OK
from catalog.source import filters
from catalog.source.near_duplicates import find_near_duplicates
from pipeline.errors import UsageError

_RULES = (
    *("max_bytes", "max_pixels", "max_aspect", "min_side", "label", "max_images"),
    *("filter", "near_duplicate"),
)
_VERDICT = ("value", "threshold", "against")


def acquit(source: pa.Table) -> pa.Table:
    """Take back what a recipe's rules said of rows; what the scan itself found stays."""
    judged = pc.is_in(source["status"], pa.array([f"rejected:{rule}" for rule in _RULES]))
    if not pc.any(judged).as_py():
        return source
    source = _set(source, "status", pc.if_else(judged, OK, source["status"]))
    for name in _VERDICT:
        nothing = pa.scalar(None, source.schema.field(name).type)
        source = _set(source, name, pc.if_else(judged, nothing, source[name]))
    return source


def apply_filter(source: pa.Table, expression: str) -> pa.Table:
    """Reject the rows of which a filter is not true; each names the first clause that it breaks.

    Raises:
        FilterError: the expression names a column that no image has.
    """
    for clause in filters.apply(expression, source):
        hit = pc.and_(pc.equal(source["status"], OK), clause.breaks)
        limit = pa.scalar(clause.threshold, pa.float64())
        verdict = {
            "status": "rejected:filter",
            "value": clause.value,
            "threshold": limit,
            "against": clause.text,
        }
        for name, said in verdict.items():
            source = _set(source, name, pc.if_else(hit, said, source[name]))
    return source


def split_near_duplicates(ranked: pa.Table, distance: int) -> tuple[pa.Table, pa.Table]:
    """Split usable rows, best first, into those to keep and those near to a better one.

    Raises:
        UsageError: the table has no perceptual hashes.
    """
    hashed = pc.is_valid(ranked["phash"])
    if ranked.num_rows and not pc.any(hashed).as_py():
        raise UsageError(
            "rules.near_duplicates needs perceptual hashes, and this source has none; "
            "scan it again with: scan --perceptual"
        )
    places = np.flatnonzero(hashed.to_numpy())  # a picture that cannot be decoded has none
    hashes = ranked["phash"].take(pa.array(places)).to_numpy().astype(np.uint64)
    nearest, apart = find_near_duplicates(hashes, distance)
    near = np.flatnonzero(nearest >= 0)
    lost = spill.take(ranked, places[near])
    kept_ones = spill.take_values(ranked["sha256"], places[nearest[near]])
    lost = _set(lost, "status", pa.array(["rejected:near_duplicate"] * len(near), pa.string()))
    lost = _set(lost, "value", pa.array(apart[near].astype(np.float64)))
    lost = _set(lost, "threshold", pa.array(np.full(len(near), float(distance))))
    lost = _set(lost, "against", kept_ones)
    stays = np.ones(ranked.num_rows, bool)
    stays[places[near]] = False
    return spill.take(ranked, np.flatnonzero(stays)), lost


def _set(table: pa.Table, name: str, values: object) -> pa.Table:
    field = table.schema.field(name)
    return table.set_column(table.schema.get_field_index(name), field, values)
