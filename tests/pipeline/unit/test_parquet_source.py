"""A unit whose images are rows of a parquet table reads each row group once."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog.dataset.dataset import Dataset
from pipeline.build.build import BuildResult, prepare
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import load_recipe
from pipeline.scan.source import Inputs
from pipeline.unit.worker import UnitWorker
from tests.pipeline.silent import Silent
from tests.rules import ANY_LOOK

IN_A_GROUP = 2


@pytest.fixture
def table(pictures: Path, tmp_path: Path) -> Path:
    """The ten pictures in five row groups, the smaller ones first, as no ranking has them."""
    found = sorted(pictures.rglob("*.[jp][pn]g"), key=lambda path: path.stem)
    path = tmp_path / "images.parquet"
    images = pa.table({"image": [one.read_bytes() for one in found]})
    pq.write_table(images, path, row_group_size=IN_A_GROUP)
    return path


@pytest.fixture
def reads(table: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """Count how often each row group of the table is read."""
    seen: Counter[int] = Counter()
    read_row_group = pq.ParquetFile.read_row_group
    schema = pq.read_schema(table)

    def counting(file: pq.ParquetFile, group: int, *rest: Any, **named: Any) -> pa.Table:
        if file.schema_arrow.equals(schema):
            seen[group] += 1
        return read_row_group(file, group, *rest, **named)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting)
    return seen


def groups_of_units(dataset: Dataset) -> Counter[int]:
    """Count in how many units each row group has rows."""
    units = [dataset.plans.rows(index).to_pylist() for index in range(len(dataset.unit_ids))]
    assert len(units) > 1
    return Counter(group for rows in units for group in {row["row"] // IN_A_GROUP for row in rows})


def test_an_annotated_unit_reads_a_row_group_once(
    table: Path, reads: Counter[int], tmp_path: Path, make: Callable[..., BuildResult]
) -> None:
    assert make(table, tmp_path / "d").status.samples == 10
    assert reads == groups_of_units(Dataset.open(str(tmp_path / "d")))


def test_a_captioned_unit_reads_a_row_group_once(
    table: Path, reads: Counter[int], tmp_path: Path, random_blip: Path
) -> None:
    captioner = ["captions.captioner=blip", f"captions.model={random_blip}"]
    small = ["image.resolution=64", "samples_per_unit=3", *ANY_LOOK]
    recipe, out = load_recipe("canny", [*small, *captioner]), str(tmp_path / "d")
    dataset = prepare(recipe, out, Inputs(images=[str(table)]), Silent())
    worker = UnitWorker(out, recipe, Execution(threads=2), captions_only=True)
    for index in range(len(dataset.unit_ids)):
        worker.caption(index)
    assert reads == groups_of_units(dataset)
