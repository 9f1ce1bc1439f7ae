"""What is asked of which node, and what the answers come to."""

from collections.abc import Sequence
from contextlib import nullcontext

import pytest

from detectors.weights.checkpoints import CHECKPOINTS
from pipeline.cluster import connect, doctor
from pipeline.cluster import nodes as ray_nodes
from pipeline.cluster.doctor import Question, diagnose
from pipeline.cluster.machine import Machine
from pipeline.cluster.nodes import RayNode

GIB = 1 << 30


def machine(*, torch: str = "2.15.0", missing: tuple[str, ...] = (), gpus: int = 0) -> Machine:
    return Machine(
        host="node",
        python="3.11.7",
        installed={"torch": torch, "opencv-python-headless": "5.0"},
        unmet={},
        gpus=("L4",) * gpus,
        missing_weights=missing,
        free_bytes={"/tmp": 50 * GIB},
        shared_memory=8 * GIB,
        storage_fault=None,
    )


def node(name: str, found: Machine | None, *, works: bool = True, gpus: float = 0) -> RayNode:
    return RayNode(
        address=name,
        gpus=gpus,
        works=works,
        object_store=2 * GIB,
        machine=found,
        silence="" if found else "ActorDiedError: gone",
    )


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[RayNode]:
    """A cluster whose nodes a test lists."""
    nodes: list[RayNode] = []

    def answer(checkpoints: Sequence[str], out: str | None) -> list[RayNode]:
        return nodes

    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setattr(connect, "connected", nullcontext)
    monkeypatch.setattr(ray_nodes, "nodes", answer)
    return nodes


def levels(question: Question) -> dict[str, str]:
    return {check.name: check.level for check in diagnose(question)}


def test_a_head_that_takes_no_units_needs_no_weights(cluster: list[RayNode]) -> None:
    lacking = machine(missing=("hed_bsds500",))
    cluster += [node("head", lacking, works=False), node("one", machine()), node("two", lacking)]
    found = levels(Question(recipes=["hed"]))
    assert "weights on head" not in found
    assert found["weights on one"] == "ok"
    assert found["weights on two"] == "fault"
    assert {found[f"versions on {name}"] for name in ("head", "one", "two")} == {"ok"}


def test_a_silent_node_and_a_different_one_are_told(cluster: list[RayNode]) -> None:
    cluster += [node("one", machine()), node("two", None), node("three", machine(torch="2.11.0"))]
    found = levels(Question())
    assert found["node on two"] == "fault"
    assert found["same versions"] == "warning"


@pytest.mark.parametrize(("gpus", "level"), [(0, "warning"), (2, "ok")])
def test_gpus_may_still_come_to_a_cluster(cluster: list[RayNode], gpus: int, level: str) -> None:
    cluster.append(node("one", machine(gpus=gpus), gpus=gpus))
    assert levels(Question(device="cuda"))["device"] == level


@pytest.mark.parametrize(
    ("recipes", "checkpoints"),
    [
        (["canny"], []),
        (["scribble", "hed"], ["hed_bsds500"]),
        (["hough", "hed"], ["hed_bsds500", "mlsd_large"]),
        ([], list(CHECKPOINTS)),
    ],
)
def test_only_what_the_recipes_need_is_asked_for(
    recipes: list[str], checkpoints: list[str]
) -> None:
    assert Question(recipes=recipes).checkpoints() == checkpoints


def test_without_a_ray_this_machine_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_ray() -> None:
        raise ConnectionError("nothing answers there")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(connect, "connected", no_ray)
    monkeypatch.setattr(doctor, "look", lambda checkpoints, out: machine())
    first, *others = diagnose(Question(recipes=["canny"], out="d"))
    assert (first.name, first.level) == ("ray", "fault")
    assert "build with --local" in first.remedy
    assert {check.name for check in others} >= {"versions", "cv2", "weights", "storage"}
