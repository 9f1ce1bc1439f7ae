"""Units through actors: one row of Ray Data is one unit is one call of an actor."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError

from pipeline.errors import BuildError
from pipeline.recipe.execution import Execution

_WAITING = 1  # units queued at an actor beside those it has in hand: no pause when one ends


def unit_rows(units: Sequence[Any], patience: float) -> ray.data.Dataset:
    """Return rows with a column ``unit``, each a block of its own.

    Args:
        units: what each row holds.
        patience: seconds in which one must end; 0 for any.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = patience or -1
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray.data.from_items([{"unit": unit} for unit in units], override_num_blocks=len(units))


def through_actors(
    rows: ray.data.Dataset,
    actor: type,
    arguments: dict[str, Any],
    execution: Execution,
    *,
    most: int,
) -> ray.data.Dataset:
    """Map each row by a call of an actor; `most` are started at most."""
    return rows.map_batches(
        actor,
        fn_constructor_kwargs=arguments,
        batch_size=1,
        num_cpus=execution.cpus_per_actor,
        num_gpus=gpus_per_actor(execution),
        compute=ActorPoolStrategy(
            min_size=min(execution.min_actors, most),
            max_size=most,
            max_tasks_in_flight_per_actor=execution.units_in_hand + _WAITING,
            max_concurrent_calls_per_actor=execution.units_in_hand,
            enable_true_multi_threading=True,
        ),
    )


@contextmanager
def ray_told(patience: float) -> Iterator[None]:
    """Tell of Ray's errors in the block in words.

    Args:
        patience: seconds in which a unit must end.

    Raises:
        BuildError: Ray itself failed, or no unit ended for too long.
    """
    try:
        yield
    except ExecutionTimeoutError as error:
        raise BuildError(
            f"no unit ended for {patience:g} s: a worker hangs, units are large, or the cluster "
            "has no room for a worker. --no-progress-timeout gives it longer. What is committed "
            "stays; the same command resumes."
        ) from error
    except RayError as error:
        raise BuildError(f"Ray stopped: {error}") from error


def room_for_actors(execution: Execution) -> int:
    """Return how many actors there may be: as asked for, or as the nodes that are up can hold.

    Raises:
        BuildError: for none; a cluster that grows must be told how far.
    """
    if execution.actors is not None:
        return execution.actors
    cpus, gpus = execution.cpus_per_actor, gpus_per_actor(execution)
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


def gpus_per_actor(execution: Execution) -> float:
    """Return the GPUs, or the share of one, that an actor takes."""
    return execution.gpus_per_actor if execution.device == "cuda" else 0
