"""Figures for Prometheus: each is counted as its name says, and the dashboard names no other."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
from ray.util.metrics import Counter, Histogram

from pipeline.build import prometheus

DASHBOARD = Path(__file__).parents[3] / "docs" / "grafana-dashboard.json"


@dataclass(frozen=True)
class Report:
    counts: Mapping[str, int]
    stages: Mapping[str, float] = field(default_factory=dict)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, float, str]]]:
    """Catch what Ray would be told: name, value and tag."""
    calls: list[tuple[str, float, str]] = []

    def tell(self: Any, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        assert value > 0 or not isinstance(self, Counter), "Ray raises"
        calls.append((self.info["name"], value, next(iter((tags or {"": ""}).values()))))

    monkeypatch.setattr(Counter, "inc", tell)
    monkeypatch.setattr(Histogram, "observe", tell)
    prometheus.metrics.cache_clear()
    yield calls
    prometheus.metrics.cache_clear()


def test_a_unit_is_counted_by_status_rule_and_stage(told: list[tuple[str, float, str]]) -> None:
    counts = {"ok": 6, "rejected:blur": 1, "rejected:coverage": 2, "failed:OSError": 1}
    prometheus.record(Report(counts, {"decode": 1.5, "commit": 0.25}))
    assert told == [
        ("factory_units", 1.0, ""),
        ("factory_images", 6, "ok"),
        ("factory_images", 1, "rejected"),
        ("factory_rejects", 1, "rejected:blur"),
        ("factory_images", 2, "rejected"),
        ("factory_rejects", 2, "rejected:coverage"),
        ("factory_images", 1, "failed"),
        ("factory_rejects", 1, "failed:OSError"),
        ("factory_stage_seconds", 1.5, "decode"),
        ("factory_unit_stage_seconds", 1.5, "decode"),
        ("factory_stage_seconds", 0.25, "commit"),
        ("factory_unit_stage_seconds", 0.25, "commit"),
        ("factory_blank_map_share", 0.2, ""),
    ]


def test_what_is_zero_is_not_added(told: list[tuple[str, float, str]]) -> None:
    prometheus.record(Report({"ok": 1, "rejected:blur": 0}, {"caption": 0.0}))
    assert told == [
        ("factory_units", 1.0, ""),
        ("factory_images", 1, "ok"),
        ("factory_unit_stage_seconds", 0.0, "caption"),
        ("factory_blank_map_share", 0.0, ""),
    ]


@pytest.mark.parametrize(("counts", "shares"), [({}, []), ({"ok": 3}, [0.0])])
def test_blank_maps_of_a_unit(
    told: list[tuple[str, float, str]], counts: dict[str, int], shares: list[float]
) -> None:
    prometheus.record(Report(counts))
    assert [value for name, value, _ in told if name == prometheus.BLANK_MAP_SHARE] == shares


def exported() -> set[str]:
    """Return the names under which Prometheus sees the metrics."""
    found = set()
    for one in fields(prometheus.Metrics):
        made = getattr(prometheus.metrics(), one.name)
        name = f"ray_{made.info['name']}"
        ends = ("_bucket", "_count") if isinstance(made, Histogram) else ("_total",)
        found |= {name + end for end in ends}
    return found


def test_the_dashboard_draws_every_metric_and_no_other() -> None:
    board = json.loads(DASHBOARD.read_text())
    targets = [target for panel in board["panels"] for target in panel["targets"]]
    drawn = {name for target in targets for name in re.findall(r"ray_factory_\w+", target["expr"])}
    assert drawn <= exported()
    stems = {re.sub(r"_(bucket|count|total)$", "", name) for name in drawn}
    assert stems == {re.sub(r"_(bucket|count|total)$", "", name) for name in exported()}


def test_the_dashboard_can_be_imported() -> None:
    board = json.loads(DASHBOARD.read_text())
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= board.keys()
    (variable,) = board["templating"]["list"]
    assert (variable["name"], variable["type"]) == ("datasource", "datasource")
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
