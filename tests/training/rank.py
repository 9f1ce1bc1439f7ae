"""One process of several that train together, forked off a server that has imported all of it."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

from catalog.dataset.latents import find_latents
from tests.training.stepping import rows_of
from training.data.view import SampleView
from training.run import loop, shared_disk
from training.settings.config import TrainConfig

SERVER = multiprocessing.get_context("forkserver")
"""Imports once; every process is a fork of it."""

SERVER.set_forkserver_preload(["tests.training.rank"])


def train_rank(
    rank: int,
    environment: dict[str, str],
    said: Path,
    settings: dict[str, Any],
    view: SampleView,
    signal_at: int | None = None,
    latents: str | None = None,
) -> None:
    """Train on a view as process `rank`, with what goes to stderr in the file `said`.

    It signals itself in step `signal_at`. The folder `latents` holds some of the view's. A
    ``{rank}`` in the run folder stands for a disk of each process's own.
    """
    with said.open("w") as file:
        os.dup2(file.fileno(), 2)
    os.environ |= environment
    if "WORLD_SIZE" in environment:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    step_of = loop._step

    def _step(session: Any, trained: Any, batches: Any, step: int, stop: Any) -> float:
        if signal_at == step:
            signal.raise_signal(signal.SIGTERM)
        return step_of(session, trained, batches, step, stop)

    loop._step = _step
    shared_disk._PATIENCE = 1.0
    config = TrainConfig(**{**settings, "out": settings["out"].format(rank=rank)})
    rows = rows_of(view, latents=find_latents(latents) if latents is not None else ())
    loop.train_on(config, rows, lambda report: None)
