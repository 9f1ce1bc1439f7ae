"""Samples, and a small committed dataset, made by the catalog alone."""

import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from catalog import storage, tables
from catalog.dataset import dataset as layout
from catalog.dataset.commits import Attempt, commit_unit
from catalog.dataset.dataset import Dataset
from catalog.dataset.shards import ShardWriter
from catalog.sample import OK, Sample, canonical_json, sample_key, sha256_hex
from catalog.source.ranking import unit_id

FINGERPRINT = "f" * 32


def picture(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, 255 - number % 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def sample_of(number: int) -> Sample:
    data = picture(number)
    return Sample(
        key=sample_key(sha256_hex(data)),
        image=data,
        image_format="png",
        conditions={"canny": picture(number + 1)},
        caption=f"picture {number}",
        metadata={"number": number},
    )


def write_attempt(
    folder: Path,
    numbers: list[int],
    *,
    index: int = 0,
    environment: dict[str, str] | None = None,
    change: str = "",
) -> Attempt:
    """Write the tar and rows of a unit; `change` makes other bytes under the same unit id."""
    folder.mkdir(parents=True, exist_ok=True)
    tar, rows = folder / "unit.tar", folder / "unit.parquet"
    records = []
    with tar.open("wb") as file:
        writer = ShardWriter(file)
        for number in numbers:
            made = sample_of(number)
            block = writer.add(made)
            records.append(
                {
                    "key": made.key,
                    "sha256": sha256_hex(made.image),
                    "offset": block.offset,
                    "length": block.length,
                    "block_sha256": block.sha256,
                    "width": 8,
                    "height": 8,
                    "source_width": 1000 - number,
                    "source_height": 8,
                    "caption": made.caption,
                    "parameters": "{}",
                    "status": OK,
                    "detail": change or None,
                }
            )
        writer.close()
    rows.write_bytes(tables.to_parquet(pa.Table.from_pylist(records, schema=tables.ROWS)))
    hashes = [record["sha256"] for record in records]
    return Attempt(
        unit_id=unit_id(FINGERPRINT, hashes),
        index=index,
        fingerprint=FINGERPRINT,
        tar=tar,
        rows=rows,
        counts={OK: len(numbers)},
        environment=environment or {"pillow": "1"},
    )


def write_dataset(out: str, scratch: Path, units: list[list[int]]) -> Dataset:
    """Write and finalize a dataset of these units."""
    attempts = [write_attempt(scratch / str(at), unit, index=at) for at, unit in enumerate(units)]
    recipe = {"recipe": {"name": "test"}, "fingerprint": FINGERPRINT}
    storage.write_atomic(storage.join(out, layout.RECIPE), canonical_json(recipe))
    numbers = [number for unit in units for number in unit]
    found = [
        {"rank": rank, "sha256": sha256_hex(sample_of(number).image), "status": OK}
        for rank, number in enumerate(numbers)
    ]
    source = pa.Table.from_pylist(found, schema=tables.SOURCE)
    storage.write_atomic(storage.join(out, layout.SOURCE), tables.to_parquet(source))
    ids = {"unit_ids": [attempt.unit_id for attempt in attempts]}
    planned = iter(found)
    groups = (
        pa.Table.from_pylist([{**next(planned), "unit": at} for _ in unit], schema=tables.PLAN)
        for at, unit in enumerate(units)
    )
    tables.write_parquet(storage.join(out, layout.PLAN), tables.PLAN, groups, ids)
    for attempt in attempts:
        commit_unit(out, attempt)
    dataset = Dataset.open(out)
    dataset.finalize()
    return dataset


@pytest.fixture(scope="session")
def make_sample() -> Callable[[int], Sample]:
    return sample_of


@pytest.fixture(scope="session")
def make_attempt() -> Callable[..., Attempt]:
    return write_attempt


@pytest.fixture(scope="session")
def make_dataset() -> Callable[[str, Path, list[list[int]]], Dataset]:
    return write_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Ten samples in three units."""
    return write_dataset(
        str(tmp_path / "d"), tmp_path / "scratch", [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]
    )
