"""Files of equal bytes: one is kept, with what all of them know."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog import spill
from catalog.sample import OK
from catalog.source.ranking import in_order_of_place
from catalog.tables import SOURCE

_TOLD = (("label", "label_sha256"), ("caption",), ("popularity",), ("scores",))
"""What copies may know, the weightiest first; columns that go together."""


_DIGITS = "0123456789abcdef"

_BATCH = 65_536  # rows whose scores are held at a time


def mark_duplicates(rows: pa.Table) -> pa.Table:
    """Keep one row of each sha256; the others are rejected rows.

    The one with a label stays, then that with a caption, popularity, scores, then the first in the
    stable order of places. What it does not know is taken from the first copy that does.
    """
    rows = in_order_of_place(rows)
    usable = pc.and_(pc.equal(rows["status"], OK), pc.is_valid(rows["sha256"])).to_numpy()
    places = _shared(rows["sha256"], usable)
    if not len(places):
        return rows
    copies = spill.take(rows.select(["sha256", *(names[0] for names in _TOLD)]), places)
    codes = _codes(copies["sha256"])
    known = {names: _knows(copies[names[0]]) for names in _TOLD}
    order = np.lexsort((places, *(~known[names] for names in reversed(_TOLD)), codes))
    heads = order[_firsts(codes[order])]  # the row that is kept, for each hash
    kept = np.zeros(int(codes.max()) + 1, np.int64)
    kept[codes[heads]] = places[heads]
    keeps = kept[codes]  # for each row, the place of the one that is kept
    for names in _TOLD:
        rows = _merge(rows, names, places, codes, keeps, known[names])
    return _reject(rows, places, keeps)


def _shared(hashes: pa.ChunkedArray, usable: np.ndarray) -> np.ndarray:
    """Return the places of usable rows whose hash another one has, too, in order.

    A first digit at a time, what begins with none last: the table in which equal ones meet is a
    sixteenth of all.
    """
    left, found = usable, []
    for digit in (*_DIGITS, ""):
        here = left & pc.fill_null(pc.starts_with(hashes, digit), False).to_numpy()
        left = left & ~here
        places = np.flatnonzero(here)
        codes = _codes(spill.take_values(hashes, places))
        found.append(places[np.bincount(codes, minlength=1)[codes] > 1])
    return np.sort(np.concatenate(found))


def _codes(hashes: pa.ChunkedArray) -> np.ndarray:
    encoded = hashes.cast(pa.large_string()).combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices.to_numpy())


def _knows(column: pa.ChunkedArray) -> np.ndarray:
    """Say of each value whether it says anything: it is no blank text, no empty map, not null."""
    if pa.types.is_map(column.type):
        lengths = [np.diff(chunk.offsets.to_numpy()) for chunk in column.chunks]
        return np.concatenate([np.zeros(0, np.int32), *lengths]) > 0
    if pa.types.is_string(column.type):
        told = pc.match_substring_regex(column, r"\S")
    else:
        told = pc.is_valid(column)
    return np.asarray(pc.fill_null(told, False).to_numpy())


def _firsts(sorted_codes: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.diff(sorted_codes, prepend=-1))


def _merge(
    rows: pa.Table,
    names: tuple[str, ...],
    places: np.ndarray,
    codes: np.ndarray,
    keeps: np.ndarray,
    known: np.ndarray,
) -> pa.Table:
    """Give kept rows that know nothing what the first copy that knows says."""
    if names == ("scores",):
        return _merge_scores(rows, places[known], keeps[known])
    ignorant = ~known & (places == keeps)
    tellers = np.flatnonzero(known)
    tellers = tellers[np.argsort(codes[tellers], kind="stable")]
    tellers = tellers[_firsts(codes[tellers])]
    source = np.arange(rows.num_rows)
    said = np.full(int(codes.max()) + 1, -1, np.int64)
    said[codes[tellers]] = places[tellers]
    asking = np.flatnonzero(ignorant & (said[codes] >= 0))
    if not len(asking):
        return rows
    source[places[asking]] = said[codes[asking]]
    for name in names:
        rows = _set(rows, name, spill.take_values(rows[name], source))
    return rows


def _merge_scores(rows: pa.Table, places: np.ndarray, keeps: np.ndarray) -> pa.Table:
    """Give kept rows each score of a copy; of different values their own, then the first one's."""
    order = np.lexsort((places, places != keeps, keeps))
    changed: dict[int, dict[str, float]] = {}
    last, told, own = -1, dict[str, float](), dict[str, float]()
    for start in range(0, len(order), _BATCH):
        some = order[start : start + _BATCH]
        values = spill.take_values(rows["scores"], places[some]).to_pylist()
        for keep, at, value in zip(
            keeps[some].tolist(), places[some].tolist(), values, strict=True
        ):
            if keep != last:
                last, told = keep, {}
                own = dict(value) if at == keep else {}
            told = {**dict(value), **told}
            if told != own:
                changed[keep] = told
    if not changed:
        return rows
    kept = np.array(sorted(changed))
    new = [sorted(changed[at].items()) for at in kept.tolist()]
    source = np.arange(rows.num_rows)
    source[kept] = rows.num_rows + np.arange(len(kept))
    column = pa.chunked_array([*rows["scores"].chunks, pa.array(new, rows["scores"].type)])
    return _set(rows, "scores", spill.take_values(column, source))


def _reject(rows: pa.Table, places: np.ndarray, keeps: np.ndarray) -> pa.Table:
    again = places != keeps
    places, keeps = places[again], keeps[again]
    order = np.argsort(places)
    uris = spill.take_values(rows["uri"], keeps[order])
    told = pc.binary_join_element_wise("same bytes as", uris, " ")
    doubled = np.zeros(rows.num_rows, bool)
    doubled[places] = True
    hit = pa.array(doubled)
    rows = _set(rows, "status", pc.if_else(hit, "rejected:duplicate", rows["status"]))
    details = pa.chunked_array([*rows["detail"].chunks, *told.chunks], pa.string())
    source = np.arange(rows.num_rows)
    source[places[order]] = rows.num_rows + np.arange(len(order))
    return _set(rows, "detail", spill.take_values(details, source))


def _set(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), SOURCE.field(name), values)
