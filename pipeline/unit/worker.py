"""The unit of work: one row group of the plan to one tar, one parquet of rows and one commit.

Runs the same in-process and inside a Ray actor; knows neither.
"""

import os
import platform
import shutil
import threading
import time
import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa

from catalog import storage, tables
from catalog.dataset import tombstones
from catalog.dataset.commits import HELD, Attempt, commit_unit, read_commit
from catalog.dataset.dataset import SOURCE
from catalog.dataset.plans import Plans
from catalog.dataset.scratch import own_folder
from catalog.dataset.shards import ShardWriter
from catalog.memory import keep_freed_memory
from catalog.sample import sample_key
from pipeline.attempts import marks, trial
from pipeline.attempts.environment import (
    captioned_in,
    environment,
    fix_threads,
    mapped_in,
    micro_batch,
    signature,
    without,
)
from pipeline.attempts.health import check_share
from pipeline.attempts.outcome import UnitFailure, UnitReport
from pipeline.errors import BuildError
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe
from pipeline.unit.caption_cache import CaptionCache, Text, cache_folder
from pipeline.unit.captions import UnitTexts, captioner_fingerprint
from pipeline.unit.clock import StageClock
from pipeline.unit.image_work import ledger_row
from pipeline.unit.stages import Annotator
from pipeline.unit.watch import Watch, leave, watching


class UnitWorker:
    """Holds a recipe's loaded detectors and turns units of one dataset into commits.

    Two threads may run a unit each: one's decoding and the other's encoding then overlap what the
    device does.
    """

    def __init__(
        self,
        dataset: str,
        recipe: Recipe,
        execution: Execution,
        run: str = "",
        *,
        captions_only: bool = False,
    ) -> None:
        """Load what a recipe needs.

        Args:
            dataset: URI of the dataset.
            recipe: of the dataset.
            execution: resources.
            run: name of the build, for the marks of its attempts.
            captions_only: load no detector, for `caption` alone.
        """
        keep_freed_memory()
        cv2.setNumThreads(1)  # threads of ours run beside each other; a library's own would compete
        self._dataset = dataset
        self._recipe = recipe
        self._execution = execution
        self._run = run
        fix_threads(recipe, execution)
        self._annotator = Annotator(
            recipe,
            threads=execution.worker_threads,
            device=execution.device,
            reuse=execution.reuse,
            roots=roots(dataset),
            captions_only=captions_only,
            captioner_later=execution.split_captions,
        )
        captioner = captioner_fingerprint(recipe)
        folder = cache_folder(dataset, execution.caption_cache)
        self._cache = None if captioner is None else CaptionCache(folder, captioner)
        self._reading = threading.Lock()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the units in hand at their next image, uncommitted."""
        self._stopped.set()

    @cached_property
    def _plans(self) -> Plans:
        return Plans(self._dataset)

    def run(self, index: int) -> UnitReport | UnitFailure:
        """Annotate and commit one unit; what a single image does wrong becomes its row."""
        unit = ""
        try:
            unit = self._plans.unit_ids[index]
            return self._committed(index, unit)
        except Exception as error:  # goes back as data: Ray would wrap it and lose its name
            return UnitFailure.of(error, index=index, unit_id=unit, dataset=self._dataset)

    def caption(self, index: int) -> None:
        """Generate a unit's texts and keep them for whoever annotates it; annotates nothing."""
        unit, rows = self._plans.unit_ids[index], self._rows(index)
        fix_threads(self._recipe, self._execution, rows)
        texts = self._annotator.texts(self._known_texts(index))
        poison = trial.set_aside(self._dataset, rows)
        with (
            self._watching(unit, rows) as watch,
            marks.marked(self._dataset, unit, self._run),
        ):
            clock = StageClock(watch)
            self._annotator.generate_texts(rows, texts, poison=poison, clock=clock)
        self._keep_texts(unit, texts, self._environment(rows))

    def _watching(
        self, unit: str, rows: Sequence[Mapping[str, Any]]
    ) -> AbstractContextManager[Watch]:
        limit, uris = self._execution.image_timeout, {row["sha256"]: row["uri"] for row in rows}

        def end(sha256s: Sequence[str]) -> None:
            tell = partial(marks.suspect, self._dataset, unit, self._run, sha256s)
            leave([uris[sha256] for sha256 in sha256s], limit, tell)

        return watching(limit, end)

    def _committed(self, index: int, unit: str) -> UnitReport:
        start = time.perf_counter()
        rows = self._rows(index)
        poison = trial.tried(self._dataset, unit, self._recipe, self._execution, rows, self._run)
        with self._watching(unit, rows) as watch:
            return self._attempted(index, unit, poison, StageClock(watch), start)

    def _attempted(
        self, index: int, unit: str, poison: Mapping[str, str], clock: StageClock, start: float
    ) -> UnitReport:
        texts = self._annotator.texts(self._known_texts(index))
        folder = _attempt_folder(self._dataset, unit)
        try:
            with marks.marked(self._dataset, unit, self._run):
                folder.mkdir(parents=True)
                removed = tombstones.removed_keys(self._dataset)
                attempt = self.attempt(
                    index, folder, poison=poison, clock=clock, texts=texts, removed=removed
                )
                check_share(attempt, self._execution.max_failed_share_of_a_unit)
                self._keep_texts(unit, texts, self._environment(self._rows(index)))
                with clock.time("commit"):
                    commit, outcome = commit_unit(self._dataset, attempt)
        except FileNotFoundError:
            existing = read_commit(self._dataset, unit)
            if existing is None:
                raise
            commit, outcome = existing, "same"  # another build finished and swept our folder away
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return UnitReport(
            index=index,
            unit_id=unit,
            outcome=outcome,
            counts=commit.counts,
            seconds=round(time.perf_counter() - start, 3),
            stages=clock.seconds(),
            worker=f"{platform.node()}:{os.getpid()}",
            device_busy=self._annotator.device.busy,
            caption_batches=texts.batches,
            network_images=self._annotator.network_images,
            caption_tokens=self._annotator.caption_tokens,
        )

    def _known_texts(self, index: int) -> dict[str, Text]:
        if self._cache is None:
            return {}
        wants = self._recipe.captions.wants
        wanted = [row["sha256"] for row in self._rows(index) if wants(row["caption"])]
        known = self._cache.find(wanted)
        if self._execution.split_captions and len(known) < len(wanted):
            unit = self._plans.unit_ids[index]
            known |= self._cache.of_unit(unit)  # just kept by a captioning actor
        return known

    def _keep_texts(self, unit: str, texts: UnitTexts, made_in: dict[str, str]) -> None:
        if self._cache is not None and texts.new:
            self._cache.keep(unit, texts.new, signature(made_in))

    def _environment(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        return environment(self._recipe, self._execution, rows)

    def attempt(
        self,
        index: int,
        folder: Path,
        *,
        poison: Mapping[str, str] | None = None,
        clock: StageClock | None = None,
        texts: UnitTexts | None = None,
        removed: Collection[str] = (),
    ) -> Attempt:
        """Annotate one unit into `folder` without committing it; generates all texts by default.

        What is set aside, by default what the dataset has set aside, is not touched. Of images with
        `removed` keys, which were taken down, there is a row and nothing else.
        """
        clock, texts = clock or StageClock(), texts or self._annotator.texts()
        before = self._annotator.micro_batch
        tar, parquet, held = (folder / f"samples{end}" for end in (".tar", ".parquet", HELD))
        records: list[dict[str, Any]] = []
        reused: set[str] = set()
        rows = self._rows(index)
        kept = [row for row in rows if sample_key(row["sha256"]) not in removed]
        poison = trial.set_aside(self._dataset, rows) if poison is None else poison
        fix_threads(self._recipe, self._execution, rows)
        made_in = self._environment(rows)
        with tar.open("xb") as file, held.open("xb") as held_file:
            writer, holder = ShardWriter(file), ShardWriter(held_file)
            for work in self._annotator.annotate(kept, poison=poison, clock=clock, texts=texts):
                if self._stopped.is_set():
                    raise BuildError("the build was stopped")
                with clock.time("write"):
                    target = writer if work.rejection is None else holder
                    block = target.add_block(work.block) if work.block else None
                records.append(ledger_row(work, block))
                reused |= {work.earlier_made_in} - {""}
            with clock.time("write"):
                for one, one_file in ((writer, file), (holder, held_file)):
                    one.close()
                    storage.sync_file(one_file)
        if len(kept) < len(rows):
            records = tombstones.with_removed(records, [row["sha256"] for row in rows])
        new_in = signature(made_in) if texts.new else None
        made_in |= micro_batch(before, self._annotator.micro_batch)
        table = pa.Table.from_pylist(records, schema=tables.ROWS)
        with parquet.open("xb") as file:
            file.write(tables.to_parquet(table))
            storage.sync_file(file)
        return Attempt(
            unit_id=self._plans.unit_ids[index],
            index=index,
            fingerprint=self._recipe.fingerprint,
            tar=tar,
            rows=parquet,
            counts=dict(sorted(Counter(record["status"] for record in records).items())),
            environment=made_in
            | without(poison)
            | mapped_in(reused, made_in)
            | captioned_in(texts.made_by, new_in),
            held=held if holder.blocks else None,
        )

    def _rows(self, index: int) -> list[dict[str, Any]]:
        with self._reading:  # one open file, and readers of it are not safe beside each other
            rows: list[dict[str, Any]] = self._plans.rows(index).to_pylist()
        return rows


def roots(dataset: str) -> list[str]:
    """Return where a dataset's images and labels come from, as far as its scan tells."""
    told = tables.read_metadata(storage.join(dataset, SOURCE))
    return [uri for name in ("images", "labels") for uri in told.get(name) or ()]


def _attempt_folder(dataset: str, unit: str) -> Path:
    """Name an attempt's folder: beside the shards where those are local, so a link suffices."""
    root = storage.local_path(dataset)
    parent = own_folder() if root is None else root / "tmp"
    return parent / f"{unit}.{uuid.uuid4().hex[:8]}"
