"""A scan in pieces that survive it: the rows of some hundred files at a time.

``<folder>/<scan>/<chunk>.parquet``, each created once; the scan's name is a hash of what was asked
for, a chunk's that of what was listed for it, sizes and times included. A scan that was killed
lists anew and goes on with the chunks that are missing, until its table is safe and `forget`
removes them; what changed meanwhile is in a chunk of another name, and is read again.
"""

import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog import spill, storage, tables
from catalog.sample import canonical_json, sha256_hex
from catalog.source.listing import PARTS, to_parts
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
"""On average; no chunk has more than twice as many."""

FORM = 3
"""Of rows as they are found; those of another are not gone on with."""

_STAMPED = ("row", "stamp")  # the stamp tells of the row as well

FOUND = tables.SOURCE.append(pa.field("part", pa.string()))
"""Rows as they are found, before they are compared; `part` is what `name_parts` says of theirs."""

_THREADS = 8  # reading waits for the disk or the network; hashing releases the interpreter lock
_AHEAD = 64  # chunks whose rows are read before they are put together
_READERS = 16


class Chunks:
    """The pieces of one scan below a folder."""

    def __init__(self, folder: str, asked: dict[str, Any]) -> None:
        self._uri = storage.join(folder, sha256_hex(canonical_json({**asked, "form": FORM}))[:32])
        self._allowed = tuple(asked.get("allowed", ()))

    def cut(self, listed: pa.Table) -> list[Chunk]:
        """Cut a listing into chunks: some files, or one container.

        Where files are cut follows from their names, so that one more or less changes one chunk.
        """
        is_file = pc.equal(listed["kind"], "file").to_numpy()
        files, containers = np.flatnonzero(is_file), np.flatnonzero(~is_file)
        pieces = [containers[at : at + 1] for at in range(len(containers))]
        ends = _ends(listed["uri"].take(pa.array(files)).to_pylist())
        pieces += [files[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        # Taken, not sliced: a slice would be sent to a worker with all of its table.
        return [self._chunk(listed.take(pa.array(piece))) for piece in pieces]

    def missing(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Return the chunks that no scan has read yet."""
        there = set(storage.list_names(self._uri))
        return [chunk for chunk in chunks if chunk.uri.rpartition("/")[2] not in there]

    def read(self, chunks: Sequence[Chunk]) -> tuple[pa.Table, dict[str, dict[str, int]]]:
        """Return the rows of all chunks, `FOUND`, and what was passed over in their parts.

        Returns:
            The rows, and by part how many files of which kind were passed over in it.

        Raises:
            DatasetError: an equal scan beside this one was done first, and tidied up.
        """
        uris = [chunk.uri for chunk in chunks]
        with ThreadPoolExecutor(_READERS) as pool:
            told = list(pool.map(tables.read_metadata, uris))
            groups = (uris[at : at + _AHEAD] for at in range(0, len(uris), _AHEAD))
            read = chain.from_iterable(pool.map(tables.read_table, group) for group in groups)
            table = spill.settle(FOUND, (one.replace_schema_metadata(None) for one in read))
        return table, {part: passed for one in told for part, passed in one["passed"].items()}

    def _chunk(self, listed: pa.Table) -> Chunk:
        name = sha256_hex(canonical_json(name_parts(listed).to_pylist()))[:32]
        uri = storage.join(self._uri, f"{name}.parquet")
        return Chunk(uri=uri, listed=listed, allowed=self._allowed)


def name_parts(listed: pa.Table) -> pa.ChunkedArray:
    """Return for each part a text that is another where a file of it changed, came or went.

    Null where nothing tells; such a part is read by each scan.

    Args:
        listed: rows of `catalog.source.listing.PARTS`.
    """
    said = [pc.fill_null(listed[name], "") for name in PARTS.names if name not in _STAMPED]
    return pc.binary_join_element_wise(*said, listed["stamp"], "\n")


def _ends(uris: Sequence[str]) -> list[int]:
    """Return where chunks of files end, by the files' names."""
    ends = [0]
    for at, uri in enumerate(uris, start=1):
        last = zlib.crc32(uri.encode()) % FILES_A_CHUNK == 0
        if last or at - ends[-1] == 2 * FILES_A_CHUNK or at == len(uris):
            ends.append(at)
    return ends[1:]


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
        rows = list(pool.map(read, parts, counters))
    named = name_parts(chunk.listed).to_pylist()
    of_rows = [name for name, found in zip(named, rows, strict=True) for _ in found]
    table = to_table(row for found in rows for row in found)
    table = table.append_column(FOUND.field("part"), pa.array(of_rows, pa.string()))
    uris = chunk.listed["uri"].to_pylist()
    passed = {uri: dict(one) for uri, one in zip(uris, counters, strict=True) if one}
    data = tables.to_parquet(table, {"passed": passed})
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
