"""A scan in pieces that survive it: the listing, then the rows of some hundred files at a time.

``<folder>/<scan>/listing.parquet`` and ``<folder>/<scan>/<chunk>.parquet``, each created once; the
scan's name is a hash of what was asked for. A scan that was killed goes on with the chunks that are
missing, from the listing that it once made, until its table is safe and `forget` removes them.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog import storage, tables
from catalog.sample import canonical_json, sha256_hex
from catalog.source.listing import Listing, to_parts
from catalog.source.parts import Part, scan_part
from catalog.source.rows import SourceRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of a scan.

    Attributes:
        uri: where its rows are to be written.
        listed: what is to be read for them, rows of `catalog.source.listing.PARTS`.
        allowed: stored URIs of folders below which a table's paths are followed, beside its own.
    """

    uri: str
    listed: pa.Table
    allowed: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.listed.num_rows)


Executor: TypeAlias = Callable[[Sequence[Chunk], bool], Iterator[int]]
"""Scans chunks, decoding for perceptual hashes or not; yields the parts of each as it is done."""

FILES_A_CHUNK = 500

_LISTING = "listing.parquet"
_FORM = 2  # of listing and rows; pieces of another are not gone on with
_THREADS = 8  # reading waits for the disk or the network; hashing releases the interpreter lock
_READERS = 16


class Chunks:
    """The pieces of one scan below a folder."""

    def __init__(self, folder: str, asked: dict[str, Any]) -> None:
        self._uri = storage.join(folder, sha256_hex(canonical_json({**asked, "form": _FORM}))[:32])
        self._allowed = tuple(asked.get("allowed", ()))

    def listing(self, make: Callable[[], Listing]) -> Listing:
        """Return the listing that was kept, or make one and keep it."""
        uri = storage.join(self._uri, _LISTING)
        if not storage.exists(uri):
            made = make()
            data = tables.to_parquet(made.table, {"ignored": made.ignored})
            with suppress(FileExistsError):  # an equal scan runs beside this one
                storage.create_once(uri, data)
        ignored = tables.read_metadata(uri)["ignored"]
        table = tables.read_table(uri).replace_schema_metadata(None)
        return Listing(table=table, ignored=ignored)

    def cut(self, listed: pa.Table) -> list[Chunk]:
        """Cut a listing into chunks: so many files, or one container."""
        is_file = pc.equal(listed["kind"], "file").to_numpy()
        files, containers = np.flatnonzero(is_file), np.flatnonzero(~is_file)
        pieces = [containers[at : at + 1] for at in range(len(containers))]
        starts = range(0, len(files), FILES_A_CHUNK)
        pieces += [files[start : start + FILES_A_CHUNK] for start in starts]
        # Taken, not sliced: a slice would be sent to a worker with all of its table.
        return [
            Chunk(uri=self._chunk_uri(number), listed=listed.take(piece), allowed=self._allowed)
            for number, piece in enumerate(pieces)
        ]

    def missing(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Return the chunks that no scan has read yet."""
        there = set(storage.list_names(self._uri))
        return [chunk for chunk in chunks if chunk.uri.rpartition("/")[2] not in there]

    def read(self, chunks: Sequence[Chunk]) -> tuple[pa.Table, Counter[str]]:
        """Return the rows of all chunks, `catalog.tables.SOURCE`, and what was passed over in them.

        Raises:
            DatasetError: an equal scan beside this one was done first, and tidied up.
        """
        uris = [chunk.uri for chunk in chunks]
        with ThreadPoolExecutor(_READERS) as pool:
            read = list(pool.map(tables.read_table, uris))
            told = list(pool.map(tables.read_metadata, uris))
        table = pa.concat_tables(
            [tables.SOURCE.empty_table(), *(table.replace_schema_metadata(None) for table in read)]
        )
        return table, sum((Counter(one["ignored"]) for one in told), Counter())

    def _chunk_uri(self, number: int) -> str:
        return storage.join(self._uri, f"{number:06d}.parquet")


def forget(folder: str) -> None:
    """Remove the pieces of all scans below a folder; an absent one is no harm."""
    root = storage.local_path(folder)
    if root is not None:
        shutil.rmtree(root, ignore_errors=True)
        return
    for entry in storage.walk(folder):
        storage.remove(storage.join(folder, entry.name))


def scan_chunk(chunk: Chunk, perceptual: bool) -> int:
    """Read the parts of a chunk, write their rows, and return how many parts they were.

    Raises:
        StorageUnavailable: the storage did not answer; nothing is written.
    """
    if storage.exists(chunk.uri):  # an equal scan runs beside this one: they share the work
        return len(chunk)
    parts = to_parts(chunk.listed)
    counters: list[Counter[str]] = [Counter() for _ in parts]

    def read(part: Part, passed: Counter[str]) -> list[SourceRow]:
        return scan_part(part, perceptual=perceptual, passed=passed, allowed=chunk.allowed)

    with ThreadPoolExecutor(_THREADS) as pool:
        rows = [row for found in pool.map(read, parts, counters) for row in found]
    ignored = dict(sum(counters, Counter()))
    data = tables.to_parquet(to_table(rows), {"ignored": ignored})
    with suppress(FileExistsError, FileNotFoundError):  # it wrote this, or is done and tidied up
        storage.create_once(chunk.uri, data)
    return len(chunk)


def scan_here(chunks: Sequence[Chunk], perceptual: bool) -> Iterator[int]:
    """Scan chunks in this process, one after the other; an `Executor`."""
    return (scan_chunk(chunk, perceptual) for chunk in chunks)


def to_table(rows: Iterable[SourceRow]) -> pa.Table:
    """Return rows as a table, `catalog.tables.SOURCE`."""
    rows = list(rows)
    columns = {name: [getattr(row, name) for row in rows] for name in tables.SOURCE.names}
    columns["scores"] = [list(row.scores.items()) for row in rows]
    return pa.table(columns, schema=tables.SOURCE)
