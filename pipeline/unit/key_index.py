"""In which of many files an image is told of, at 12 bytes an image."""

from collections.abc import Iterable, Iterator

import numpy as np

_DIGITS = 16  # of a hash: 8 bytes of the 12


class KeyIndex:
    """Finds files by the start of a hash; two images may share it, so a file may not hold it."""

    def __init__(self, files: Iterable[list[str]]) -> None:
        """Take the hex hashes, or sample keys, of the images in each file."""
        keys = [np.array([_key(one) for one in hashes], np.uint64) for hashes in files]
        places = [np.full(len(some), number, np.int32) for number, some in enumerate(keys)]
        together = np.concatenate([np.empty(0, np.uint64), *keys])
        order = np.argsort(together, kind="stable")
        self._keys = together[order]
        self._places = np.concatenate([np.empty(0, np.int32), *places])[order]

    def files_of(self, key: str) -> Iterator[int]:
        """Yield the numbers of the files that may hold an image, the first file first."""
        wanted = _key(key)
        at = int(np.searchsorted(self._keys, wanted))
        while at < len(self._keys) and self._keys[at] == wanted:
            yield int(self._places[at])
            at += 1


def _key(key: str) -> np.uint64:
    return np.uint64(int(key[:_DIGITS], 16))
