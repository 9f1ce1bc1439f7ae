"""What follows a night that has ended: its page, figures for Prometheus, old nights, a webhook.

None of it changes how the night ended; what fails is told in a line.
"""

import json
import logging
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from catalog import storage
from catalog.dataset import snapshots
from catalog.dataset.dataset import Dataset
from pipeline.retrain.journal import Outcome
from pipeline.retrain.morning import write_morning
from pipeline.retrain.night import Ended
from pipeline.retrain.nightly import Nightly
from pipeline.retrain.promotions import current, history

METRICS = "metrics.prom"

_log = logging.getLogger(__name__)

_PATIENCE = 30  # seconds for a webhook


def finish_off(config: Nightly, ended: Ended) -> Iterator[str]:
    """Do what follows a night; yield a line for people about each thing that was made or failed."""
    summary = ended.summary()
    steps: list[tuple[str, Callable[[], str | None]]] = [
        ("the page of the morning", lambda: f"page: {write_morning(config, ended.night)}"),
        ("figures for Prometheus", lambda: write_metrics(config, ended)),
        ("old nights", lambda: _forget_old(config)),
    ]
    if config.webhook is not None:
        url = config.webhook
        steps.append(("the webhook", lambda: _post(url, summary)))
    for name, do in steps:
        try:
            line = do()
        except Exception as error:  # the night has ended, and as it did
            _log.debug("%s failed", name, exc_info=True)
            line = f"{name} failed: {type(error).__name__}: {error}"
        if line is not None:
            yield line


def write_metrics(config: Nightly, ended: Ended) -> None:
    """Write what node_exporter's textfile collector reads, metrics.prom in the folder."""
    registry = CollectorRegistry()

    def gauge(name: str, text: str, value: float) -> None:
        Gauge(f"controlnet_factory_{name}", text, registry=registry).set(value)

    gauge("night_ended_seconds", "When the last night ended, since 1970", time.time())
    gauge("night_refused", "1 where the gate refused it", ended.outcome == Outcome.REFUSED)
    newest = current(config.folder)
    if newest is not None:
        since = datetime.fromisoformat(newest.at).timestamp()
        gauge("current_since_seconds", "When what is current was promoted, since 1970", since)
        gauge("current_promotion", "Number of the promotion that is current", newest.number)
    taken = ended.stages.get("snapshot")
    if taken is not None:
        gauge("night_images", "Images in the source", taken["images"])
        gauge("night_samples", "Samples in the dataset", taken["samples"])
    storage.write_atomic(config.path(METRICS), generate_latest(registry))


def _forget_old(config: Nightly) -> str | None:
    """Delete snapshots and runs of nights that need not be kept; what is promoted stays."""
    newest = current(config.folder)
    protected = {newest.night} if newest else set()
    dropped: set[str] = set()
    root = config.path("datasets")
    for name in storage.list_names(root):
        dataset = Dataset.open(storage.join(root, name))
        found = snapshots.list_snapshots(dataset.uri)
        here = protected & {one.name for one in found}
        age = timedelta(days=config.keep.days)
        for one in snapshots.choose_old(
            found, keep=config.keep.nights, older_than=age, protect=here
        ):
            snapshots.drop_snapshot(dataset.uri, one.name)
            dropped.add(one.name)
    runs = {promotion.night: promotion.run for promotion in history(config.folder)}
    for night in sorted(dropped):
        if config.train is not None or night in runs:
            shutil.rmtree(config.run_folder(night), ignore_errors=True)
    return f"forgot {', '.join(sorted(dropped))}" if dropped else None


def _post(url: str, summary: dict[str, Any]) -> None:
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"{url} is no http(s) URL")
    data = json.dumps(summary).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=_PATIENCE):
        pass
