"""What a build tells Prometheus, by way of Ray: every node serves the figures of its own workers.

Ray writes ``ray_`` before each name and ``_total`` behind a counter's, and adds tags of its own,
for node and worker. It keeps a histogram's buckets only, so its ``_sum`` is a guess from their
middles: what is summed up is a counter here. docs/grafana-dashboard.json draws them all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from ray.util.metrics import Counter, Histogram

from catalog.sample import OK

UNITS = "factory_units"
IMAGES = "factory_images"
REJECTS = "factory_rejects"
STAGE_SECONDS = "factory_stage_seconds"
UNIT_STAGE_SECONDS = "factory_unit_stage_seconds"
REFUSED_MAP_SHARE = "factory_refused_map_share"

_REFUSED = "rejected:coverage"
_SECONDS = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000]
_SHARES = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]


class Counted(Protocol):
    """What is counted here of a unit; `pipeline.attempts.outcome.UnitReport` is one."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Images by status: ``ok``, ``rejected:<rule>``, ``failed:<class>``."""
        ...

    @property
    def stages(self) -> Mapping[str, float]:
        """Seconds by stage, summed over threads."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """The metrics of one process.

    Attributes:
        units: committed units.
        images: images by ``status``: ok, rejected or failed.
        rejects: images that gave no sample, by ``rule``: the whole status.
        stage_seconds: time spent in each ``stage``; seconds, summed over threads.
        unit_stage_seconds: the same, as one observation a unit.
        refused_map_share: share of a unit's images whose map the coverage rule refused, 0..1.
    """

    units: Counter
    images: Counter
    rejects: Counter
    stage_seconds: Counter
    unit_stage_seconds: Histogram
    refused_map_share: Histogram


@cache
def metrics() -> Metrics:
    """Return this process's metrics; made at the first call, when Ray is there to take them."""
    return Metrics(
        units=Counter(UNITS, "Committed units"),
        images=Counter(IMAGES, "Images by status", tag_keys=("status",)),
        rejects=Counter(REJECTS, "Images that gave no sample, by rule", tag_keys=("rule",)),
        stage_seconds=Counter(STAGE_SECONDS, "Seconds by stage", tag_keys=("stage",)),
        unit_stage_seconds=Histogram(
            UNIT_STAGE_SECONDS,
            "Seconds of a unit by stage",
            boundaries=_SECONDS,
            tag_keys=("stage",),
        ),
        refused_map_share=Histogram(
            REFUSED_MAP_SHARE,
            "Share of a unit's images with a map that covers too little or too much",
            boundaries=_SHARES,
        ),
    )


def record(report: Counted) -> None:
    """Count a unit that was committed; call it once a unit, in a process that Ray knows."""
    made = metrics()
    made.units.inc()
    for status, count in report.counts.items():
        _add(made.images, count, status=status.partition(":")[0])
        if status != OK:
            _add(made.rejects, count, rule=status)
    for stage, seconds in report.stages.items():
        _add(made.stage_seconds, seconds, stage=stage)
        made.unit_stage_seconds.observe(seconds, tags={"stage": stage})
    if images := sum(report.counts.values()):
        made.refused_map_share.observe(report.counts.get(_REFUSED, 0) / images)


def _add(counter: Counter, value: float, **tags: str) -> None:
    if value > 0:  # Ray refuses to add nothing
        counter.inc(value, tags=tags)
