"""Units on Ray: one Ray Data row is one unit is one call of an actor that holds the networks."""

import json
import logging
import math
from collections.abc import Generator, Sequence
from dataclasses import asdict
from typing import Any

import ray
from ray.exceptions import RayError

from pipeline.attempts.outcome import UnitFailure, UnitReport
from pipeline.build import prometheus
from pipeline.cluster.connect import connected, from_anywhere
from pipeline.cluster.units import room_for_actors, through_actors, unit_rows
from pipeline.errors import BuildError
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe
from pipeline.unit.worker import UnitWorker

log = logging.getLogger(__name__)


class UnitActor:
    """A worker inside Ray; rows in and out are small, pixels never leave the actor."""

    def __init__(
        self, dataset: str, recipe: dict[str, Any], execution: dict[str, Any], run: str
    ) -> None:
        self._worker: UnitWorker | None = None
        try:
            self._worker = UnitWorker(
                dataset, Recipe.model_validate(recipe), Execution.model_validate(execution), run
            )
        except Exception as error:  # told by the first unit: Ray would wrap it and lose its name
            self._error = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Run the units whose indices the batch holds; return what became of them as JSON."""
        return {"result": [json.dumps(self._run(int(index))) for index in batch["unit"]]}

    def _run(self, index: int) -> dict[str, Any]:
        if self._worker is not None:
            result = self._worker.run(index)
            if isinstance(result, UnitReport):
                prometheus.record(result)
            return asdict(result)
        error, detail = type(self._error).__name__, str(self._error)
        return asdict(UnitFailure(index=index, unit_id="", error=error, detail=detail, fatal=True))


class CaptionActor:
    """A worker inside Ray that only captions; hands the numbers of its units on."""

    def __init__(
        self, dataset: str, recipe: dict[str, Any], execution: dict[str, Any], run: str
    ) -> None:
        made = Recipe.model_validate(recipe), Execution.model_validate(execution)
        self._worker = UnitWorker(dataset, *made, run, captions_only=True)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Caption the units whose indices the batch holds."""
        for index in batch["unit"]:
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
        BuildError: Ray itself failed, or no unit ended for too long.
    """
    threads = execution.threads or math.ceil(execution.cpus_per_actor)
    arguments = {
        "dataset": from_anywhere(dataset),
        "recipe": recipe.to_dict(),
        "execution": execution.model_dump() | {"threads": threads},
        "run": run,
    }
    captioned = recipe.captions.network is not None
    try:
        with connected():
            for start in range(0, len(pending), execution.wave):
                wave = pending[start : start + execution.wave]
                for row in _dataset(arguments, execution, wave, captioned).iter_rows():
                    result = json.loads(row["result"])
                    yield UnitFailure(**result) if "error" in result else UnitReport(**result)
    except RayError as error:
        raise BuildError(f"Ray stopped: {error}") from error


def _dataset(
    arguments: dict[str, Any], execution: Execution, wave: Sequence[int], captioned: bool
) -> ray.data.Dataset:
    room = room_for_actors(execution)
    units = unit_rows(wave, execution)
    if execution.split_captions and captioned:
        most = min(execution.caption_actors or room, len(wave))
        units = through_actors(units, CaptionActor, arguments, execution, most=most)
    return through_actors(units, UnitActor, arguments, execution, most=min(room, len(wave)))
