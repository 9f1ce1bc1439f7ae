"""The unit of work: one row group of the plan to one tar, one parquet of rows and one commit.

Runs the same in-process and inside a Ray actor; knows neither.
"""

import platform
import shutil
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import PIL
import pyarrow as pa
from PIL import features

from catalog import storage, tables
from catalog.commits import HELD, Attempt, Outcome, commit_unit, read_commit
from catalog.dataset import PLAN
from catalog.shards import ShardWriter
from pipeline.annotate import Annotator, ledger_row
from pipeline.execution import Execution
from pipeline.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitReport:
    """What became of one call for a unit.

    Attributes:
        index: of the unit in the plan.
        unit_id: 32 hex characters.
        outcome: ``committed``, or what an earlier attempt's commit made of this one.
        counts: images by status.
        seconds: wall time of the whole call.
        network_images: images that the networks looked at, since the worker started.
    """

    index: int
    unit_id: str
    outcome: Outcome
    counts: dict[str, int]
    seconds: float
    network_images: int


class UnitWorker:
    """Holds a recipe's loaded detectors and turns units of one dataset into commits."""

    def __init__(self, dataset: str, recipe: Recipe, execution: Execution) -> None:
        cv2.setNumThreads(1)  # threads of ours run beside each other; a library's own would compete
        self._dataset = dataset
        self._recipe = recipe
        self._environment = environment(recipe, execution)
        self._annotator = Annotator(
            recipe, threads=execution.threads, device=execution.device, reuse=execution.reuse
        )

    @cached_property
    def _plan(self) -> Any:
        return tables.open_parquet(storage.join(self._dataset, PLAN))

    @cached_property
    def _unit_ids(self) -> list[str]:
        return list(tables.read_metadata(storage.join(self._dataset, PLAN))["unit_ids"])

    def run(self, index: int) -> UnitReport:
        """Annotate and commit one unit; what a single image does wrong becomes its row.

        Raises:
            DeterminismError: an equal attempt gave other bytes.
            OSError: the dataset's storage cannot be written.
        """
        start = time.perf_counter()
        unit = self._unit_ids[index]
        folder = _attempt_folder(self._dataset, unit)
        try:
            folder.mkdir(parents=True)
            attempt = self.attempt(index, folder)
            commit, outcome = commit_unit(self._dataset, attempt)
        except FileNotFoundError:
            existing = read_commit(self._dataset, unit)
            if existing is None:
                raise
            commit, outcome = existing, "same"  # another build finished and swept our folder away
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        seconds = time.perf_counter() - start
        return UnitReport(
            index=index,
            unit_id=unit,
            outcome=outcome,
            counts=commit.counts,
            seconds=seconds,
            network_images=self._annotator.network_images,
        )

    def attempt(self, index: int, folder: Path) -> Attempt:
        """Annotate one unit into `folder` without committing it."""
        rows = self._plan.read_row_group(index).to_pylist()
        unit = self._unit_ids[index]
        tar, parquet, held = (folder / f"samples{end}" for end in (".tar", ".parquet", HELD))
        records: list[dict[str, Any]] = []
        with tar.open("xb") as file, held.open("xb") as held_file:
            writer, holder = ShardWriter(file), ShardWriter(held_file)
            for work in self._annotator.annotate(rows):
                target = writer if work.rejection is None else holder
                block = target.add_block(work.block) if work.block else None
                records.append(ledger_row(work, block))
            for one in (writer, holder):
                one.close()
            for one_file in (file, held_file):
                storage.sync_file(one_file)
        table = pa.Table.from_pylist(records, schema=tables.ROWS)
        with parquet.open("xb") as file:
            file.write(tables.to_parquet(table))
            storage.sync_file(file)
        return Attempt(
            unit_id=unit,
            index=index,
            fingerprint=self._recipe.fingerprint,
            tar=tar,
            rows=parquet,
            counts=dict(sorted(Counter(record["status"] for record in records).items())),
            environment=self._environment | {"micro_batch": str(self._annotator.micro_batch)},
            held=held if holder.blocks else None,
        )


def environment(recipe: Recipe, execution: Execution) -> dict[str, str]:
    """Return what besides the recipe can move a bit of the output.

    Fixes the number of threads inside torch, which sums in another order with another number.
    """
    signature = {
        "device": execution.device,
        "libjpeg_turbo": str(features.version_feature("libjpeg_turbo")),
        "machine": platform.machine(),
        "opencv": cv2.__version__,
        "pillow": PIL.__version__,
        "pyarrow": pa.__version__,
    }
    if recipe.networks:
        import torch

        torch.set_num_threads(execution.network_threads)
        signature["network_threads"] = str(execution.network_threads)
        signature["precision"] = recipe.precision
        signature["torch"] = torch.__version__
        if execution.device == "cuda":
            signature["device"] = torch.cuda.get_device_name()
    return signature


def _attempt_folder(dataset: str, unit: str) -> Path:
    """Name an attempt's folder: beside the shards where those are local, so a link suffices."""
    root = storage.local_path(dataset)
    parent = Path(tempfile.gettempdir()) if root is None else root / "tmp"
    return parent / f"{unit}.{uuid.uuid4().hex[:8]}"
