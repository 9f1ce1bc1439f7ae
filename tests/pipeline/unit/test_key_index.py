"""The index of images by file: small, stable, and read without holding what it reads."""

import hashlib
import time
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from catalog import tables
from pipeline.unit.key_index import KeyIndex


def sha(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def write(folder: Path, files: Iterable[list[str]]) -> list[str]:
    """Write a parquet for each list of hashes; return their URIs."""
    uris = []
    for number, hashes in enumerate(files):
        path = folder / f"{number:04d}.parquet"
        path.write_bytes(tables.to_parquet(pa.table({"key": pa.array(hashes, pa.string())})))
        uris.append(str(path))
    return uris


def test_files_that_may_hold_an_image_are_found_in_order(tmp_path: Path) -> None:
    files = [[sha(1), sha(2)], [], [sha(3), sha(1)], [sha(2)[:16] + "0" * 48]]
    index = KeyIndex.read(write(tmp_path, files), "key")
    found = {number: list(index.files_of(sha(number))) for number in range(5)}
    assert found == {0: [], 1: [0, 2], 2: [0, 3], 3: [2], 4: []}
    assert list(index.files_of(sha(3)[:32])) == [2]  # a sample's key finds it as well


def test_no_files_hold_nothing() -> None:
    assert list(KeyIndex.read([], "key").files_of(sha(1))) == []


def test_files_are_read_little_ahead_of_what_is_taken_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However fast the reading: a dataset's hashes, as strings, are many gigabytes."""
    read: list[str] = []
    read_table = tables.read_table

    def counting(uri: str, columns: list[str]) -> pa.Table:
        read.append(uri)
        return read_table(uri, columns)

    monkeypatch.setattr(tables, "read_table", counting)
    uris, ahead = write(tmp_path, [[sha(number)] for number in range(100)]), []

    class Slow(KeyIndex):
        def __init__(self, files: Iterable[list[str]]) -> None:
            def slowly() -> Iterable[list[str]]:
                for taken, hashes in enumerate(files, start=1):
                    if taken % 20 == 1:
                        time.sleep(0.1)
                    ahead.append(len(read) - taken)
                    yield hashes

            super().__init__(slowly())

    index = Slow.read(uris, "key")
    assert [list(index.files_of(sha(number))) for number in (0, 99)] == [[0], [99]]
    assert len(read) == 100
    assert max(ahead) <= 20


def test_an_image_takes_twelve_bytes() -> None:
    draws = np.random.default_rng(0)
    tracemalloc.start()
    try:
        index = KeyIndex([draws.bytes(16).hex() for _ in range(500)] for _ in range(200))
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert list(index.files_of("0" * 32)) == []
    assert 12 <= held / 100_000 < 14
    assert peak / 100_000 < 45
