"""An actor outside Ray: what it tells where it cannot work, and when it leaves."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.build import on_ray
from pipeline.build.on_ray import CaptionActor, UnitActor
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe


class _Left(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def arguments(tmp_path: Path, recipe: Recipe) -> dict[str, Any]:
    return {
        "dataset": str(tmp_path / "not-mounted-here"),
        "recipe": recipe.to_dict(),
        "execution": Execution(threads=1).model_dump(),
        "run": "run",
    }


@pytest.fixture
def leaving(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(_: int) -> None:
        raise _Left

    monkeypatch.setattr("os._exit", leave)
    monkeypatch.setattr(on_ray, "_PARTING", 0)


def test_an_actor_that_cannot_be_made_says_so_and_leaves(
    arguments: dict[str, Any], leaving: None
) -> None:
    """It ends no build: another node may have what it lacks."""
    actor = UnitActor(**arguments)
    for _ in range(3):
        (told,) = actor({"unit": [0]})["result"]
        failure = json.loads(told)
        assert (failure["fatal"], failure["of_the_place"]) == (False, True)
        assert "not-mounted-here" in failure["detail"]
    with pytest.raises(_Left):
        actor({"unit": [0]})


def test_an_actor_leaves_when_its_last_unit_in_hand_has_ended(
    arguments: dict[str, Any], leaving: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = UnitActor(**arguments)
    real, inside, go_on = actor._result, threading.Event(), threading.Event()
    left: list[int] = []

    def slow(index: int) -> Any:
        if index == 9:
            inside.set()
            assert go_on.wait(10)
        return real(index)

    monkeypatch.setattr(actor, "_result", slow)

    def work(index: int) -> None:
        try:
            actor({"unit": [index]})
        except _Left:
            left.append(index)

    threads = [threading.Thread(target=work, args=[9], daemon=True)]
    threads[0].start()
    assert inside.wait(10)
    for _ in range(3):
        actor({"unit": [0]})
    threads.append(threading.Thread(target=work, args=[1], daemon=True))
    threads[1].start()
    threads[1].join(0.2)
    assert left == []
    go_on.set()
    threads[0].join(10)
    assert left == [9]


def test_a_caption_actor_that_cannot_be_made_passes_units_on(arguments: dict[str, Any]) -> None:
    assert CaptionActor(**arguments)({"unit": [3]}) == {"unit": [3]}
