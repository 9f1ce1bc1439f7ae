"""How many tasks of a scan wait at Ray: a cluster that grows by itself grows for what waits."""

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.scan import on_ray


def test_a_scan_asks_for_more_than_a_small_cluster_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins on a head without a CPU and sees the nodes that come while it runs."""
    waiting, cpus = [], iter([0, 0, 0, *[1000] * 10_000])

    class Fake:
        @staticmethod
        def remote(**_: Any) -> Any:
            return lambda function: SimpleNamespace(remote=lambda chunk, _: chunk)

        @staticmethod
        def wait(running: list[int], **_: Any) -> tuple[list[int], list[int]]:
            waiting.append(len(running))
            return running[:1], running[1:]

        get = staticmethod(list)
        cluster_resources = staticmethod(lambda: {"CPU": next(cpus)})

    monkeypatch.setattr(on_ray, "ray", Fake)
    chunks: Any = list(range(5000))
    assert list(on_ray._scan(chunks, False)) == chunks
    assert waiting[:3] == [400, 400, 400]
    assert max(waiting) == 2000
