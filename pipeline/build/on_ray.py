"""Units on Ray: one Ray Data row is one unit is one call of an actor that holds the networks."""

import json
import logging
import math
import os
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, replace
from typing import Any

import ray

from catalog import storage
from catalog.dataset.dataset import PLAN
from pipeline.attempts.health import Health
from pipeline.attempts.outcome import UnitFailure, UnitReport
from pipeline.build import prometheus
from pipeline.cluster.connect import connected, from_anywhere
from pipeline.cluster.sharing import require_shared
from pipeline.cluster.units import ray_told, room_for_actors, sized, through_actors, unit_rows
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe
from pipeline.unit.worker import UnitWorker, roots

log = logging.getLogger(__name__)

_PARTING = 1.0  # seconds before an actor that leaves is gone: what it said last is still sent


class UnitActor:
    """A worker inside Ray; rows in and out are small, pixels never leave the actor.

    One that cannot be made, or fails several units in a row for reasons of its place, leaves.
    """

    def __init__(
        self, dataset: str, recipe: dict[str, Any], execution: dict[str, Any], run: str
    ) -> None:
        self._dataset = dataset
        self._worker: UnitWorker | None = None
        self._health = Health(execution["failures_before_leaving"])
        self._lock = threading.Lock()
        self._running = 0
        self._leaving = False
        try:
            self._worker = UnitWorker(
                dataset, Recipe.model_validate(recipe), Execution.model_validate(execution), run
            )
        except Exception as error:  # told by the first units: Ray would wrap it and lose its name
            self._error = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Run the units whose indices the batch holds; return what became of them as JSON."""
        return {"result": [json.dumps(self._run(int(index))) for index in batch["unit"]]}

    def _run(self, index: int) -> dict[str, Any]:
        with self._lock:
            self._running += 1
        if self._health.sick:
            self._leave()
        result = self._result(index)
        if self._leaving:
            self._leave()
        with self._lock:
            self._running -= 1
        self._health.tell(result)
        if isinstance(result, UnitReport) and result.outcome == "committed":
            _record(result)  # another attempt's commit was counted where it was made
        return asdict(result)

    def _result(self, index: int) -> UnitReport | UnitFailure:
        if self._worker is not None:
            return self._worker.run(index)
        failure = UnitFailure.of(self._error, index=index, unit_id="", dataset=self._dataset)
        return replace(failure, of_the_place=True)  # whatever it is: others have their workers

    def _leave(self) -> None:
        """End this process when no unit is in hand; Ray starts another and gives it the units."""
        self._leaving = True
        if self._worker is not None:
            self._worker.stop()
        with self._lock:
            self._running -= 1
            last = self._running == 0
        if last:
            time.sleep(_PARTING)
            os._exit(1)
        threading.Event().wait()  # for the last one's exit


def _record(report: UnitReport) -> None:
    """Count a unit for Prometheus; what is wrong there costs no committed unit."""
    try:
        prometheus.record(report)
    except Exception as error:
        log.warning("unit %d is not counted: %s", report.index, error)


class CaptionActor:
    """A worker inside Ray that only captions; hands the numbers of its units on."""

    def __init__(
        self, dataset: str, recipe: dict[str, Any], execution: dict[str, Any], run: str
    ) -> None:
        self._worker: UnitWorker | None = None
        made = Recipe.model_validate(recipe), Execution.model_validate(execution)
        try:
            self._worker = UnitWorker(dataset, *made, run, captions_only=True)
        except Exception as error:  # units then pass as they are, and are captioned where annotated
            log.warning("nothing is captioned ahead here: %s", error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Caption the units whose indices the batch holds."""
        for index in batch["unit"]:
            if self._worker is None:
                break
            try:
                self._worker.caption(int(index))
            except Exception as error:  # who annotates the unit meets it too, and tells of it
                log.warning("unit %d is not captioned ahead: %s", index, error)
        return batch


def run_on_ray(
    dataset: str, recipe: Recipe, execution: Execution, pending: Sequence[int], run: str
) -> Generator[UnitReport | UnitFailure]:
    """Run units on a Ray cluster (RAY_ADDRESS), or on a local one that starts and stops by itself.

    Raises:
        UsageError: what the work reads or writes lies where another node cannot see it.
        BuildError: Ray itself failed, or no unit ended for too long.
    """
    captioned = recipe.captions.network is not None
    reused = [] if execution.reuse is None else [storage.join(execution.reuse, PLAN)]
    patience = execution.patience(recipe.samples_per_unit)
    with ray_told(patience), connected():
        require_shared([storage.join(dataset, PLAN), *roots(dataset), *reused])
        execution = sized(execution)
        threads = execution.threads or math.ceil(execution.cpus_per_actor or 1)
        arguments = {
            "dataset": from_anywhere(dataset),
            "recipe": recipe.to_dict(),
            "execution": execution.model_dump() | {"threads": threads},
            "run": run,
        }
        for start in range(0, len(pending), execution.wave):
            wave = pending[start : start + execution.wave]
            rows = _dataset(arguments, execution, unit_rows(wave, patience), len(wave), captioned)
            for row in rows.iter_rows():
                result = json.loads(row["result"])
                failed = "error" in result
                yield (
                    UnitFailure(**result | {"machines": _machines()})
                    if failed
                    else UnitReport(**result)
                )


def _machines() -> int:
    """Return how many nodes are up that can hold an actor."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in nodes)


def _dataset(
    arguments: dict[str, Any],
    execution: Execution,
    units: ray.data.Dataset,
    count: int,
    captioned: bool,
) -> ray.data.Dataset:
    room = room_for_actors(execution)
    if execution.split_captions and captioned:
        most = min(execution.caption_actors or room, count)
        units = through_actors(units, CaptionActor, arguments, execution, most=most)
    return through_actors(units, UnitActor, arguments, execution, most=min(room, count))
