"""The machines of a Ray cluster, each looked at by a task of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.cluster.machine import Machine, look

_PATIENCE = 120.0  # seconds until a node's answer is given up; the first task there imports torch


@dataclass(frozen=True, slots=True, kw_only=True)
class RayNode:
    """A node as Ray sees it, and what a task there found.

    Attributes:
        address: of the node.
        gpus: that Ray hands out.
        works: whether it takes work: a head that was started with no CPU does not.
        object_store: size of its object store; bytes.
        machine: what was found there; None where no task ran.
        silence: why there is no answer.
    """

    address: str
    gpus: float
    works: bool
    object_store: float
    machine: Machine | None
    silence: str = ""


def nodes(checkpoints: Sequence[str], out: str | None) -> list[RayNode]:
    """Look at every live node of the connected cluster, all at once."""
    known: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [node for node in known if node["Alive"]]
    asked = [_ask(node["NodeID"], checkpoints, out) for node in alive]
    ray.wait(asked, num_returns=len(asked), timeout=_PATIENCE)
    return [_answered(node, answer) for node, answer in zip(alive, asked, strict=True)]


def _ask(node_id: str, checkpoints: Sequence[str], out: str | None) -> Any:
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    task = ray.remote(look).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
    return task.remote(list(checkpoints), out)


def _answered(node: dict[str, Any], answer: Any) -> RayNode:
    machine, silence = None, ""
    try:
        machine = ray.get(answer, timeout=0)
    except RayError as error:
        silence = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    has: dict[str, float] = node["Resources"]
    return RayNode(
        address=node["NodeManagerAddress"],
        gpus=has.get("GPU", 0),
        works=has.get("CPU", 0) > 0 or has.get("GPU", 0) > 0,
        object_store=has.get("object_store_memory", 0),
        machine=machine,
        silence=silence,
    )
