"""In which of many files an image is told of, at 12 bytes an image."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from catalog import tables
from pipeline.unit.streams import map_ahead

_DIGITS = 16  # of a hash: 8 bytes of the 12
_READERS = 16


class KeyIndex:
    """Finds files by the start of a hash; two images may share it, so a file may not hold it."""

    def __init__(self, files: Iterable[list[str]]) -> None:
        """Take the hex hashes, or sample keys, of the images in each file."""
        keys = [np.array([_key(one) for one in hashes], np.uint64) for hashes in files]
        counts = [len(some) for some in keys]
        together = np.concatenate([np.empty(0, np.uint64), *keys])
        del keys
        order = np.argsort(together, kind="stable")
        self._keys = together[order]
        del together
        self._places = np.repeat(np.arange(len(counts), dtype=np.int32), counts)[order]

    @classmethod
    def read(cls, uris: Sequence[str], column: str) -> "KeyIndex":
        """Read the hashes of parquet files, no more of them at a time than are being read.

        Args:
            uris: of the files.
            column: that holds the hex hashes, or sample keys.
        """

        def hashes(uri: str) -> list[str]:
            found: list[str] = tables.read_table(uri, [column])[column].to_pylist()
            return found

        with ThreadPoolExecutor(_READERS) as pool:
            return cls(map_ahead(pool, hashes, uris, ahead=_READERS))

    def files_of(self, key: str) -> Iterator[int]:
        """Yield the numbers of the files that may hold an image, the first file first."""
        wanted = _key(key)
        at = int(np.searchsorted(self._keys, wanted))
        while at < len(self._keys) and self._keys[at] == wanted:
            yield int(self._places[at])
            at += 1


def _key(key: str) -> np.uint64:
    return np.uint64(int(key[:_DIGITS], 16))
