"""Units on Ray: one Ray Data row is one unit is one call of an actor that holds the networks."""

import json
import logging
import math
import os
from collections.abc import Generator, Sequence
from dataclasses import asdict
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from pipeline.attempts.outcome import UnitFailure, UnitReport
from pipeline.build import prometheus
from pipeline.cluster.connect import connected
from pipeline.errors import BuildError
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe
from pipeline.unit.worker import UnitWorker

log = logging.getLogger(__name__)

_WAITING = 1  # units queued at an actor beside those it has in hand: no pause when one ends


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
    uri = os.path.abspath(dataset) if "://" not in dataset else dataset
    threads = execution.threads or math.ceil(execution.cpus_per_actor)
    arguments = {
        "dataset": uri,
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
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = execution.no_progress_timeout
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    gpus = execution.gpus_per_actor if execution.device == "cuda" else 0
    room = execution.actors or _actors_that_fit(execution.cpus_per_actor, gpus)
    units: ray.data.Dataset = ray.data.from_items(
        [{"unit": i} for i in wave], override_num_blocks=len(wave)
    )

    def mapped(rows: ray.data.Dataset, actor: type, most: int) -> ray.data.Dataset:
        most = min(most, len(wave))
        return rows.map_batches(
            actor,
            fn_constructor_kwargs=arguments,
            batch_size=1,
            num_cpus=execution.cpus_per_actor,
            num_gpus=gpus,
            compute=ActorPoolStrategy(
                min_size=min(execution.min_actors, most),
                max_size=most,
                max_tasks_in_flight_per_actor=execution.units_in_hand + _WAITING,
                max_concurrent_calls_per_actor=execution.units_in_hand,
                enable_true_multi_threading=True,
            ),
        )

    if execution.split_captions and captioned:
        units = mapped(units, CaptionActor, execution.caption_actors or room)
    return mapped(units, UnitActor, room)


def _actors_that_fit(cpus: float, gpus: float) -> int:
    """Return how many actors of this size the nodes that are up have room for.

    Raises:
        BuildError: for none; a cluster that grows must be told how far.
    """
    have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    fit = have.get("CPU", 0) / cpus
    if gpus:
        fit = min(fit, have.get("GPU", 0) / gpus)
    if fit < 1:
        raise BuildError(
            f"no room for an actor of {cpus:g} CPUs and {gpus:g} GPUs on the nodes that are up "
            f"({have.get('CPU', 0):g} CPUs, {have.get('GPU', 0):g} GPUs): lower what an actor "
            "takes or, where the cluster grows by itself, say how far with --actors"
        )
    return int(fit)
