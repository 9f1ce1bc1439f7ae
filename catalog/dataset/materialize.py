"""A view as plain tars, for people without this tool."""

from collections.abc import Iterator
from pathlib import Path

from catalog.dataset.dataset import View, unpack_verified
from catalog.dataset.shards import ShardWriter
from catalog.errors import CatalogError


def materialize(view: View, out: Path, *, samples_per_tar: int = 1000) -> Iterator[int]:
    """Copy a view's samples, verified and in order, into ``out/000000.tar``, ``000001.tar``, ...

    Yields the number of samples written so far, after each tar.

    Raises:
        CatalogError: `out` holds something already.
        CorruptSampleError: a stored sample is not the committed one.
    """
    require_empty(out)
    out.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(view), samples_per_tar)):
        temporary = out / f".{number:06d}.tar.tmp"
        rows = view.table.slice(start, samples_per_tar).to_pylist()
        with temporary.open("wb") as file:
            writer = ShardWriter(file)
            for row in rows:
                block = view.read_block(row)
                unpack_verified(block, row)
                writer.add_block(block)
            writer.close()
        temporary.rename(out / f"{number:06d}.tar")
        yield start + len(rows)


def require_empty(out: Path) -> None:
    """Raise CatalogError where a folder to write into holds something already."""
    if out.exists() and any(out.iterdir()):
        raise CatalogError(f"{out} is not empty; choose a new folder")
