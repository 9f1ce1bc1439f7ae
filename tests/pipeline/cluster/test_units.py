"""What an actor takes of a node, and how many find room."""

from typing import Any

import pytest
import ray

from pipeline.cluster.units import room_for_actors, shared_out
from pipeline.errors import BuildError
from pipeline.recipe.execution import Execution


@pytest.mark.parametrize(
    ("nodes", "chosen", "cpus", "gpus"),
    [
        ([{"CPU": 16, "GPU": 1}], {}, 4, 0.25),
        ([{"CPU": 8, "GPU": 1}], {}, 4, 0.5),
        ([{"CPU": 3, "GPU": 1}], {}, 3, 1),
        ([{"CPU": 12, "GPU": 1}], {}, 4, 0.3333),
        ([{"CPU": 192, "GPU": 8}], {}, 6, 0.25),
        ([{"CPU": 64, "GPU": 1}], {}, 16, 0.25),
        ([{"CPU": 64, "GPU": 1}, {"CPU": 8, "GPU": 1}, {"CPU": 4}], {}, 4, 0.5),
        ([{"CPU": 16, "GPU": 1}], {"gpus_per_actor": 1}, 16, 1),
        ([{"CPU": 16, "GPU": 1}], {"gpus_per_actor": 0.5}, 8, 0.5),
        ([{"CPU": 16, "GPU": 1}], {"cpus_per_actor": 8}, 8, 0.5),
        ([{"CPU": 1, "GPU": 2}], {}, 1, 1),
        ([{"CPU": 16}, {"CPU": 4, "GPU": 0}], {}, None, None),
    ],
)
def test_a_gpu_is_shared_by_actors_with_its_cpus(
    nodes: list[dict[str, float]], chosen: dict[str, float], cpus: float, gpus: float
) -> None:
    made = shared_out(Execution(device="cuda", **chosen), nodes)
    assert (made.cpus_per_actor, made.gpus_per_actor) == (cpus, gpus)
    for node in nodes:
        if cpus and node.get("GPU"):
            assert int(1 / gpus) * cpus <= max(node["CPU"] / node["GPU"], 1)  # all find room


def test_on_cpus_nothing_is_chosen() -> None:
    assert shared_out(Execution(), [{"CPU": 16, "GPU": 1}]) == Execution()


@pytest.mark.parametrize(
    ("chosen", "fit"),
    [
        ({}, 16),
        ({"memory_per_actor": 4}, 8),
        ({"memory_per_actor": 1}, 16),
        ({"cpus_per_actor": 4, "memory_per_actor": 4}, 4),
        ({"actors": 100, "memory_per_actor": 4}, 100),
    ],
)
def test_no_more_actors_than_memory_holds(
    chosen: dict[str, Any], fit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 16, "memory": 32 * 2**30})
    assert room_for_actors(Execution(**chosen)) == fit


def test_an_actor_that_fits_into_no_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 16, "memory": 3 * 2**30})
    with pytest.raises(BuildError, match=r"no room .*\(16 CPUs, 0 GPUs, 3\.0 GiB\)"):
        room_for_actors(Execution(memory_per_actor=4))
