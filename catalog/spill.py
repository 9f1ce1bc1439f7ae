"""Tables that may be larger than memory: rows are put together a piece at a time, on disk.

A table above `ROWS_IN_MEMORY` goes into a temporary file that is memory-mapped and has no name any
more, so that the system may drop its pages, and nothing is left behind. No column passes through
one array, since an array of texts ends at 2 GiB.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

ROWS_IN_MEMORY = 2_000_000

_PIECE = 500_000  # rows put together at a time, or as many as have
_BYTES = 1 << 30


def take(table: pa.Table, positions: np.ndarray) -> pa.Table:
    """Return the rows at `positions`, in that order; consecutive ones are not copied."""
    positions = positions.astype(np.int64, copy=False)  # Arrow's own are unsigned
    if _is_run(positions):
        return table.slice(int(positions[0]) if len(positions) else 0, len(positions))
    return settle(table.schema, _gather(table, positions))


def take_values(column: pa.ChunkedArray, positions: np.ndarray) -> pa.ChunkedArray:
    """Return the values of one column at `positions`, as `take` does."""
    return take(pa.table({"values": column}), positions)["values"]


def where(table: pa.Table, mask: Any) -> pa.Table:
    """Return the rows at which a mask is true; null is not."""
    return take(table, np.flatnonzero(mask.fill_null(False).to_numpy()))


def settle(schema: pa.Schema, pieces: Iterable[pa.Table]) -> pa.Table:
    """Return the pieces as one table: in memory, or on disk from `ROWS_IN_MEMORY` on."""
    pieces, held, count = iter(pieces), [schema.empty_table()], 0
    for piece in pieces:
        held.append(piece)
        count += piece.num_rows
        if count > ROWS_IN_MEMORY:
            return _map(schema, held, pieces)
    return pa.concat_tables(held)


def _is_run(positions: np.ndarray) -> bool:
    if not len(positions):
        return True
    first, last = int(positions[0]), int(positions[-1])
    return last - first == len(positions) - 1 and bool((np.diff(positions) == 1).all())


def _gather(table: pa.Table, positions: np.ndarray) -> Iterator[pa.Table]:
    batches = table.to_batches()
    ends = np.cumsum([batch.num_rows for batch in batches])
    most = max(1, min(_PIECE, _BYTES * table.num_rows // max(table.nbytes, 1)))
    for start in range(0, len(positions), most):
        piece = positions[start : start + most]
        order = np.argsort(piece, kind="stable")
        cuts = np.searchsorted(piece[order], ends)
        yield _gather_piece(table.schema, batches, ends, piece[order], cuts).take(_inverse(order))


def _gather_piece(
    schema: pa.Schema,
    batches: list[pa.RecordBatch],
    ends: np.ndarray,
    ascending: np.ndarray,
    cuts: np.ndarray,
) -> pa.Table:
    """Return the rows at ascending positions, of which `cuts` says where each batch's end."""
    found = []
    for at in np.flatnonzero(np.diff(cuts, prepend=0)):
        first = cuts[at - 1] if at else 0
        begin = ends[at] - batches[at].num_rows
        found.append(batches[at].take(pa.array(ascending[first : cuts[at]] - begin)))
    return pa.Table.from_batches(found, schema).combine_chunks()


def _inverse(order: np.ndarray) -> pa.Array:
    inverse = np.empty(len(order), np.int64)
    inverse[order] = np.arange(len(order))
    return pa.array(inverse)


def _map(schema: pa.Schema, held: list[pa.Table], more: Iterator[pa.Table]) -> pa.Table:
    """Write tables into a file of the temporary folder, and return them as that file has them."""
    handle, path = tempfile.mkstemp(suffix=".arrow")
    try:
        with os.fdopen(handle, "wb") as file, pa.ipc.new_file(file, schema) as writer:
            while held:
                writer.write_table(held.pop(0), max_chunksize=_PIECE)
            for piece in more:
                writer.write_table(piece, max_chunksize=_PIECE)
        return pa.ipc.open_file(pa.memory_map(path)).read_all()
    finally:
        os.unlink(path)
