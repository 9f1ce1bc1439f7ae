"""Units on Ray: one Ray Data row is one unit is one call of an actor that holds the networks."""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from pipeline.errors import BuildError
from pipeline.execution import Execution
from pipeline.recipe import Recipe
from pipeline.unit import UnitReport, UnitWorker

_RESUME = "Committed units stay; the same command resumes."
_IN_FLIGHT = 2  # units handed to an actor at a time: the next is there when one ends


class UnitActor:
    """A worker inside Ray; rows in and out are small, pixels never leave the actor."""

    def __init__(self, dataset: str, recipe: dict[str, Any], execution: dict[str, Any]) -> None:
        self._worker = UnitWorker(
            dataset, Recipe.model_validate(recipe), Execution.model_validate(execution)
        )

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Run the units whose indices the batch holds; return their reports as JSON."""
        return {"report": [json.dumps(self._run(int(index))) for index in batch["unit"]]}

    def _run(self, index: int) -> dict[str, Any]:
        # An error of ours goes back as data: Ray would wrap it in its own and lose its name.
        try:
            return asdict(self._worker.run(index))
        except Exception as error:
            return {"error": f"unit {index}: {type(error).__name__}: {error}"}


def run_on_ray(
    dataset: str, recipe: Recipe, execution: Execution, pending: Sequence[int]
) -> Iterator[UnitReport]:
    """Run units on a Ray cluster (RAY_ADDRESS), or on a local one that starts and stops by itself.

    Raises:
        BuildError: a unit or Ray failed; committed units stay, and the same command resumes.
    """
    started = not ray.is_initialized()
    if started:
        _start()
    try:
        for row in _dataset(dataset, recipe, execution, pending).iter_rows():
            report = json.loads(row["report"])
            if "error" in report:
                raise BuildError(f"{report['error']}. {_RESUME}")
            yield UnitReport(**report)
    except RayError as error:
        raise BuildError(f"Ray stopped: {error}. {_RESUME}") from error
    finally:
        if started:
            ray.shutdown()


def _start() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of this build
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.WARNING, log_to_driver=False)
        return
    # A private instance on this machine: what Ray says of tokens and restarts is for clusters.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)


def _dataset(
    dataset: str, recipe: Recipe, execution: Execution, pending: Sequence[int]
) -> ray.data.Dataset:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    gpus = execution.gpus_per_actor if execution.device == "cuda" else 0
    most = execution.actors or _actors_that_fit(execution.cpus_per_actor, gpus)
    units = ray.data.from_items([{"unit": i} for i in pending], override_num_blocks=len(pending))
    return units.map_batches(
        UnitActor,
        fn_constructor_args=(os.path.abspath(dataset) if "://" not in dataset else dataset,),
        fn_constructor_kwargs={"recipe": recipe.to_dict(), "execution": execution.model_dump()},
        batch_size=1,
        num_cpus=execution.cpus_per_actor,
        num_gpus=gpus,
        compute=ActorPoolStrategy(
            min_size=1,
            max_size=min(most, len(pending)),
            max_tasks_in_flight_per_actor=_IN_FLIGHT,
        ),
    )


def _actors_that_fit(cpus: float, gpus: float) -> int:
    """Return how many actors of this size the cluster has room for; at least one."""
    have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    fit = have.get("CPU", 1) / cpus
    if gpus:
        fit = min(fit, have.get("GPU", 0) / gpus)
    return max(1, int(fit))
