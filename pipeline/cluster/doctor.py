"""Would a build work here? Every machine that would take part is looked at and judged."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ray.exceptions import RayError

import captioning.weights
from captioning.generated import LoadedSpec
from detectors.weights.checkpoints import CHECKPOINTS
from pipeline.cluster import checks, connect
from pipeline.cluster import nodes as ray_nodes
from pipeline.cluster.checks import Check
from pipeline.cluster.machine import Machine, look
from pipeline.cluster.nodes import RayNode
from pipeline.recipe.recipe import load_recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a build would need.

    Attributes:
        recipes: paths or names; empty: any that ships with the project.
        out: URI of the dataset; None: nothing is written.
        device: cpu or cuda.
    """

    recipes: Sequence[str] = ()
    out: str | None = None
    device: str = "cpu"

    def checkpoints(self) -> list[str]:
        """Return the checkpoints of the recipes, or all where none was named."""
        if not self.recipes:
            return list(CHECKPOINTS)
        networks = (network for name in self.recipes for network in load_recipe(name).networks)
        named = {name for network in networks for name in network.checkpoints}
        return sorted(named & CHECKPOINTS.keys())

    def captioners(self) -> dict[str, bool]:
        """Return the captioners of the recipes, and whether one of them gives it all images."""
        short = {model: name for name, model in captioning.weights.NAMES.items()}
        if not self.recipes:
            return {short[captioning.weights.BASE]: False}
        found: dict[str, bool] = {}
        for spec in (load_recipe(name).captions for name in self.recipes):
            if isinstance(spec, LoadedSpec) and spec.model in short:
                name = short[spec.model]
                found[name] = found.get(name, False) or spec.wants_all
        return found


def diagnose(question: Question) -> list[Check]:
    """Look at this machine, or at every node of RAY_ADDRESS's cluster; a line for each finding.

    Raises:
        RecipeError: there is no such recipe.
    """
    checkpoints = question.checkpoints()
    looked_for = [*checkpoints, *question.captioners()]
    address = os.environ.get("RAY_ADDRESS")
    try:
        with connect.connected():
            nodes = ray_nodes.nodes(looked_for, question.out)
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        fault = _no_ray(error, address)
        machine = look(looked_for, question.out)
        return [fault, *_of_machine(machine, question, checkpoints, works=True)]
    found = [check for node in nodes for check in _of_node(node, question, checkpoints)]
    machines = [node.machine for node in nodes if node.machine is not None]
    found.append(checks.device(question.device, machines, may_grow=address is not None))
    if len(nodes) > 1:
        found.append(checks.same_everywhere(machines))
    return found


def _no_ray(error: Exception, address: str | None) -> Check:
    found, asked = str(error).strip().splitlines()[0], address or "a local one"
    return Check(
        name="ray",
        level="fault",
        found=found if asked in found else f"{asked}: {found}",
        remedy="RAY_ADDRESS must be the address of a running head, host:6379 or auto"
        if address
        else "build with --local, or free memory and /tmp/ray and try again",
    )


def _of_node(node: RayNode, question: Question, checkpoints: Sequence[str]) -> Iterator[Check]:
    where = f" on {node.address}"
    if node.machine is None:
        remedy = "look at the node's raylet log; the node needs this project's packages"
        yield Check(name=f"node{where}", level="fault", found=node.silence, remedy=remedy)
        return
    found = [
        checks.gpus(node.machine, node.gpus),
        checks.object_store(node.machine, node.object_store),
        *_of_machine(node.machine, question, checkpoints, works=node.works),
    ]
    for check in found:
        yield replace(check, name=check.name + where)


def _of_machine(
    machine: Machine, question: Question, checkpoints: Sequence[str], *, works: bool
) -> Iterator[Check]:
    yield from checks.versions(machine)
    yield checks.opencv(machine)
    yield checks.mediapipe(machine)
    yield from checks.free_disk(machine)
    if works:
        yield checks.weights(machine, checkpoints, all_needed=bool(question.recipes))
        for name, always in question.captioners().items():
            yield checks.captioner(machine, name, always=always)
    if question.out is not None:
        yield checks.storage_works(machine, question.out)
