"""A scan in pieces that survive it: the listing, then the rows of some hundred files at a time.

``<folder>/<scan>/listing.parquet`` and ``<folder>/<scan>/<chunk>.parquet``, each created once; the
scan's name is a hash of what was asked for. A scan that was killed goes on with the chunks that are
missing, from the listing that it once made; the folder is gone when the scan is done.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any, TypeAlias

import pyarrow as pa

from catalog import storage, tables
from catalog.sample import canonical_json, sha256_hex
from catalog.source_rows import SourceRow
from catalog.sources import Listing, Part, scan_part

Chunk: TypeAlias = tuple[str, Sequence[Part]]
"""Where a chunk's rows are to be written, and what is to be read for them."""

Executor: TypeAlias = Callable[[Sequence[Chunk], bool], Iterator[int]]
"""Scans chunks, decoding for perceptual hashes or not; yields the parts of each as it is done."""

FILES_A_CHUNK = 500

_LISTING = "listing.parquet"
_THREADS = 8  # reading waits for the disk or the network; hashing releases the interpreter lock
_READERS = 16

_PARTS = pa.schema(
    [pa.field(name, pa.string()) for name in ("uri", "kind", "txt", "json", "label")]
)


class Chunks:
    """The pieces of one scan below a folder."""

    def __init__(self, folder: str, asked: dict[str, Any]) -> None:
        self._uri = storage.join(folder, sha256_hex(canonical_json(asked))[:32])

    def listing(self, make: Callable[[], Listing]) -> Listing:
        """Return the listing that was kept, or make one and keep it."""
        uri = storage.join(self._uri, _LISTING)
        if not storage.exists(uri):
            made = make()
            records = [_record(part) for part in made.parts]
            table = pa.Table.from_pylist(records, schema=_PARTS)
            with suppress(FileExistsError):  # an equal scan runs beside this one
                storage.create_once(uri, tables.to_parquet(table, {"ignored": made.ignored}))
        parts = [_part(record) for record in tables.read_table(uri).to_pylist()]
        return Listing(parts=parts, ignored=tables.read_metadata(uri)["ignored"])

    def cut(self, parts: Sequence[Part]) -> list[Chunk]:
        """Cut parts into chunks: so many files, or one container."""
        files = [part for part in parts if part.kind == "file"]
        pieces = [[part] for part in parts if part.kind != "file"]
        starts = range(0, len(files), FILES_A_CHUNK)
        pieces += [files[start : start + FILES_A_CHUNK] for start in starts]
        return [(self._chunk_uri(number), piece) for number, piece in enumerate(pieces)]

    def missing(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Return the chunks that no scan has read yet."""
        there = set(storage.list_names(self._uri))
        return [chunk for chunk in chunks if chunk[0].rpartition("/")[2] not in there]

    def read(self, chunks: Sequence[Chunk]) -> pa.Table:
        """Return the rows of all chunks, `catalog.tables.SOURCE`."""
        with ThreadPoolExecutor(_READERS) as pool:
            read = list(pool.map(tables.read_table, (uri for uri, _ in chunks)))
        return pa.concat_tables(
            [tables.SOURCE.empty_table(), *(table.replace_schema_metadata(None) for table in read)]
        )

    def forget(self) -> None:
        """Remove all of the scan."""
        root = storage.local_path(self._uri)
        if root is not None:
            shutil.rmtree(root, ignore_errors=True)
            with suppress(OSError):  # another scan's pieces lie there too
                root.parent.rmdir()
            return
        for name in storage.list_names(self._uri):
            storage.remove(storage.join(self._uri, name))

    def _chunk_uri(self, number: int) -> str:
        return storage.join(self._uri, f"{number:06d}.parquet")


def scan_chunk(chunk: Chunk, perceptual: bool) -> int:
    """Read the parts of a chunk, write their rows, and return how many parts they were.

    Raises:
        StorageUnavailable: the storage did not answer; nothing is written.
    """
    uri, parts = chunk
    read = partial(scan_part, perceptual=perceptual)
    with ThreadPoolExecutor(_THREADS) as pool:
        rows = [row for found in pool.map(read, parts) for row in found]
    with suppress(FileExistsError):  # an equal scan runs beside this one
        storage.create_once(uri, tables.to_parquet(to_table(rows)))
    return len(parts)


def scan_here(chunks: Sequence[Chunk], perceptual: bool) -> Iterator[int]:
    """Scan chunks in this process, one after the other; an `Executor`."""
    return (scan_chunk(chunk, perceptual) for chunk in chunks)


def to_table(rows: Iterable[SourceRow]) -> pa.Table:
    """Return rows as a table, `catalog.tables.SOURCE`."""
    records = [asdict(row) | {"scores": list(row.scores.items())} for row in rows]
    return pa.Table.from_pylist(records, schema=tables.SOURCE)


def _record(part: Part) -> dict[str, str | None]:
    beside = {end: part.sidecars.get(end) for end in ("txt", "json")}
    return {"uri": part.uri, "kind": part.kind, "label": part.label, **beside}


def _part(record: dict[str, Any]) -> Part:
    beside = {end: record[end] for end in ("txt", "json") if record[end] is not None}
    return Part(uri=record["uri"], kind=record["kind"], sidecars=beside, label=record["label"])
