"""Units through actors: one row of Ray Data is one unit is one call of an actor."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError

from pipeline.errors import BuildError
from pipeline.recipe.execution import Execution

_CPUS = 1
_GIB = 2**30
_CPUS_OF_A_SHARE = 4
_ACTORS_A_GPU = 4  # each holds the networks once more
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
        num_cpus=execution.cpus_per_actor or _CPUS,
        num_gpus=_gpus(execution),
        memory=_memory(execution),
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
    cpus, gpus = execution.cpus_per_actor or _CPUS, _gpus(execution)
    have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    fit = have.get("CPU", 0) / cpus
    if gpus:
        fit = min(fit, have.get("GPU", 0) / gpus)
    if execution.memory_per_actor is not None:
        fit = min(fit, have.get("memory", 0) / _GIB / execution.memory_per_actor)
    if fit < 1:
        raise BuildError(
            f"no room for an actor of {cpus:g} CPUs and {gpus:g} GPUs on the nodes that are up "
            f"({have.get('CPU', 0):g} CPUs, {have.get('GPU', 0):g} GPUs, "
            f"{have.get('memory', 0) / _GIB:.1f} GiB): lower what an actor "
            "takes or, where the cluster grows by itself, say how far with --actors"
        )
    return int(fit)


def sized(execution: Execution) -> Execution:
    """Return the execution with what an actor takes, where nobody chose that."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return shared_out(execution, [node["Resources"] for node in nodes if node["Alive"]])


def shared_out(execution: Execution, nodes: Sequence[Mapping[str, float]]) -> Execution:
    """Return the execution with what an actor takes, where nobody chose that.

    One process feeds a GPU with no more than a core or two of decoding, drawing and encoding, as
    Python runs one thread at a time: so a GPU is shared by an actor for each four CPUs that are
    beside it.

    Args:
        execution: on cuda, or it stays as it is.
        nodes: what each has, in Ray's terms: CPU, GPU. Those with the fewest CPUs a GPU count;
            where none has a GPU yet, an actor takes a CPU and a GPU.
    """
    beside = [node.get("CPU", 0) / node["GPU"] for node in nodes if node.get("GPU")]
    if execution.device != "cuda" or not beside:
        return execution
    cpus, gpus = execution.cpus_per_actor, execution.gpus_per_actor
    if gpus is None:
        actors = min(max(min(beside) // (cpus or _CPUS_OF_A_SHARE), 1), _ACTORS_A_GPU)
        gpus = math.floor(1e4 / actors) / 1e4  # Ray counts in ten thousandths
    if cpus is None:
        cpus = max(math.floor(min(beside) * gpus + 1e-3), 1)
    return execution.model_copy(update={"cpus_per_actor": cpus, "gpus_per_actor": gpus})


def _memory(execution: Execution) -> float | None:
    """Return what Ray is told of an actor's memory, in bytes; None where nobody chose that."""
    return None if execution.memory_per_actor is None else execution.memory_per_actor * _GIB


def _gpus(execution: Execution) -> float:
    """Return the GPUs, or the share of one, that an actor takes."""
    return (execution.gpus_per_actor or 1) if execution.device == "cuda" else 0
