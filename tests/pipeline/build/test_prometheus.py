"""The dashboard draws the figures that there are; `test_cluster` reads them from a real node."""

import json
import re
from dataclasses import fields
from pathlib import Path

from ray.util.metrics import Histogram

from pipeline.build import prometheus

DASHBOARD = Path(__file__).parents[3] / "docs" / "grafana-dashboard.json"


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
