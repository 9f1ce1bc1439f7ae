"""Samples of remote shards, kept on a local disk.

A file a sample, named by the hash that its commit recorded, in 256 folders. So any number of
processes and runs share a folder, whatever they die of: a file that is not what its name says is
fetched again, and what is damaged in the storage is never kept.
"""

import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path

from catalog import storage
from catalog.errors import StorageError
from catalog.sample import sha256_hex

_log = logging.getLogger(__name__)


class BlockCache:
    """Blocks by hash in a local folder, which is made when the first one is kept; picklable.

    Args:
        folder: a path, or a ``file://`` URI.

    Raises:
        StorageError: the folder is remote.
    """

    def __init__(self, folder: str) -> None:
        path = storage.local_path(folder)
        if path is None:
            raise StorageError(f"a cache must be on a local disk, got {folder!r}: name a folder")
        self._folder = path
        self._full = False

    def read(self, sha256: str, fetch: Callable[[], bytes]) -> bytes:
        """Return the block with this hash, from the folder where it is there, else from `fetch`.

        Args:
            sha256: hex.
            fetch: reads the block from its shard; what it raises goes on, and what it returns is
                returned even where it has another hash, but not kept.
        """
        path = self._folder / sha256[:2] / sha256
        kept = _read(path)
        if kept is not None and sha256_hex(kept) == sha256:
            return kept
        block = fetch()
        if sha256_hex(block) == sha256:
            self._keep(path, block)
        return block

    def _keep(self, path: Path, block: bytes) -> None:
        temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(block)
            os.replace(temporary, path)  # not synced: what a crash tears, its hash tells
        except OSError as error:
            if not self._full:
                _log.warning("cache %s: %s; read on without it", self._folder, error)
            self._full = True
            _remove(temporary)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:  # not there; or a disk that fails, and then the storage is asked
        return None


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # its folder could not be made, or cannot be written to
        return
