"""Threads decode no more pixels at once than there is room for."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pipeline.recipe.recipe import Recipe
from pipeline.unit import load
from pipeline.unit.load import Loader
from pipeline.unit.room import Room


class Holding:
    """Counts what is held at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0

    def __call__(self, room: Room, amount: int) -> None:
        with room.held(amount):
            with self._lock:
                self._now += amount
                self.most = max(self.most, self._now)
            time.sleep(0.002)
            with self._lock:
                self._now -= amount


@pytest.mark.parametrize(("amounts", "most"), [([3] * 40, 9), ([1, 7, 4] * 12, 10), ([30] * 5, 30)])
def test_what_is_held_at_once_stays_below_its_size(amounts: list[int], most: int) -> None:
    """One that is too large for it goes alone."""
    room, holding = Room(10), Holding()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda amount: holding(room, amount), amounts))
    assert holding.most <= most


def test_room_is_given_back_where_the_work_fails() -> None:
    room = Room(10)
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"), room.held(10):
            raise ValueError("broken")
    with room.held(10):
        pass


def test_large_images_are_decoded_one_by_one(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four threads; small ones go beside each other."""
    inside: list[str] = []
    together: set[tuple[str, ...]] = set()

    def decode(data: bytes, **_: Any) -> Any:
        inside.append(data.decode())
        time.sleep(0.02)
        together.add(tuple(sorted(inside)))
        inside.remove(data.decode())
        raise ValueError("no image")

    monkeypatch.setattr(load, "decode", decode)
    monkeypatch.setattr(load, "sha256_hex", lambda data: data.decode())
    monkeypatch.setattr(load, "_PIXELS", 2_000_000)
    loader = Loader(recipe, None)
    sides = {"large-a": 1500, "large-b": 1600, "small-a": 100, "small-b": 110}
    rows = [
        {"sha256": name, "uri": name, "label": None, "width": side, "height": side, "format": "PNG"}
        for name, side in sides.items()
    ]
    with ThreadPoolExecutor(4) as pool:
        works = list(
            pool.map(lambda row: loader(row, read=lambda row: row["sha256"].encode()), rows * 3)
        )
    assert len(works) == 12
    assert not any({"large-a", "large-b"} <= set(seen) for seen in together)
    assert any({"small-a", "small-b"} <= set(seen) for seen in together)
