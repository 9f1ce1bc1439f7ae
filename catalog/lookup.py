"""Which values of one column are in another, and where, however long both are.

`is_in` and `index_in` go through all of the other in each call; what is asked for piece by piece
asks `Hashes`, which are sorted once.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_LONG = 1 << 30  # bytes of texts; one array of Arrow's plain ones ends at twice that


def is_in(values: pa.ChunkedArray, others: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a mask: whether each value is among the others; null is where null is among them."""
    return pc.is_in(*_alike(values, others))


def index_in(values: pa.ChunkedArray, others: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return at which place of the others each value stands first; null where at none."""
    return pc.index_in(*_alike(values, others))


def _alike(
    values: pa.ChunkedArray, others: pa.ChunkedArray
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    if others.nbytes < _LONG:
        return values, others
    return values.cast(pa.large_string()), others.cast(pa.large_string())


class Hashes:
    """Hex hashes that are looked for many times, some at a time.

    Args:
        column: of texts; null is none of them.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        pieces = [_fixed_width(chunk) for chunk in column.chunks]
        self._sorted = np.concatenate([np.empty(0, "S1"), *pieces])
        self._sorted.sort()

    def has(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return a mask: whether each value is one of these; null is not."""
        if not len(self._sorted):
            return pa.chunked_array([np.zeros(len(values), bool)])
        wanted = _fixed_width(values.fill_null(""))
        at = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        equal = pa.chunked_array([self._sorted[at] == wanted])
        return pc.and_(values.is_valid(), equal)


def _fixed_width(texts: pa.Array | pa.ChunkedArray) -> np.ndarray:
    found: np.ndarray = texts.drop_null().cast(pa.binary()).to_numpy(zero_copy_only=False)
    return found.astype("S")
