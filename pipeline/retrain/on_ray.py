"""Training under Ray Train: the same loop in workers of a cluster, begun again where one dies.

The run folder lies on a disk that all nodes share, as for `accelerate launch`; what a worker goes
on from is its newest checkpoint there, never Ray's. So a run may begin under Ray and go on without,
or with another number of workers, as long as a step reads as many samples.
"""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer

from pipeline.cluster.connect import connected, from_anywhere
from pipeline.errors import BuildError
from pipeline.retrain.ray_worker import Mistakes, work
from training.run.checkpoint import list_checkpoints
from training.run.damage import count_damaged
from training.run.loop import RunSummary
from training.settings.config import TrainConfig
from training.watch.signals import LossRecord, losses

_PLACES = {"dataset", "out", "cache", "base", "start_from"}
_OR_HUB_IDS = {"base", "start_from"}  # where such a folder is not here

_LOOK_EVERY = 5.0  # seconds between looks at what the run has recorded


def train_on_ray(
    config: TrainConfig,
    workers: int,
    *,
    retries: int = 3,
    progress: Callable[[LossRecord], None] = lambda record: None,
) -> RunSummary:
    """Train with workers of a Ray cluster (RAY_ADDRESS), or of a local one that stops by itself.

    Args:
        config: the settings; `out`, and local datasets and bases, at paths that all nodes have.
        workers: processes, a GPU each where the cluster has as many.
        retries: times that the run is taken up again where a worker fails.
        progress: told of the losses as the run records them.

    Raises:
        BuildError: Ray failed, or the training did, more often than that.
    """
    settings = settings_for_workers(config)
    run = Path(settings["out"])
    begun = _newest_step(run)
    try:
        with connected(), tempfile.TemporaryDirectory() as scratch, _followed(run, progress):
            gpus = float(ray.cluster_resources().get("GPU", 0)) >= workers  # type: ignore[no-untyped-call]
            mistakes: Any = ray.remote(num_cpus=0)(Mistakes).remote()
            trainer = TorchTrainer(
                work,
                train_loop_config={"settings": settings, "mistakes": mistakes},
                scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
                run_config=RunConfig(
                    storage_path=scratch, failure_config=FailureConfig(max_failures=retries)
                ),
            )
            trainer.fit()
            said: list[str] = ray.get(mistakes.said.remote())
    except (RayError, TrainingFailedError) as error:
        raise BuildError(f"the training stopped: {_first_cause(error)}") from error
    if said:
        raise BuildError(said[0])
    return _summary(run, begun)


def settings_for_workers(config: TrainConfig) -> dict[str, Any]:
    """Return what was asked for as JSON types, with local paths from the root."""
    settings = config.model_dump(mode="json", exclude_unset=True)
    for name in _PLACES & settings.keys():
        if settings[name] is not None and (
            name not in _OR_HUB_IDS or os.path.isdir(settings[name])
        ):
            settings[name] = from_anywhere(settings[name])
    return settings


def _newest_step(run: Path) -> int | None:
    held = list_checkpoints(run)
    return held[-1].step if held else None


def _summary(run: Path, begun: int | None) -> RunSummary:
    """Return what the workers did, from what the run recorded; Ray keeps nothing of it."""
    steps = _newest_step(run) or 0
    ours = [record for record in losses(run).read() if record.step > (begun or 0)]
    return RunSummary(
        folder=run,
        steps=steps,
        resumed_from=begun,
        steps_done=steps - (begun or 0),
        loss=ours[-1].loss if ours else None,
        images_per_second=median(record.images_per_second for record in ours) if ours else None,
        damaged=count_damaged(run),
    )


@contextmanager
def _followed(run: Path, progress: Callable[[LossRecord], None]) -> Iterator[None]:
    """Tell of what the run records while the block lasts."""
    ended = threading.Event()
    last = max((record.step for record in losses(run).read()), default=0)

    def follow() -> None:
        told, over = last, False
        while not over:
            over = ended.wait(_LOOK_EVERY)  # and one look more, at the last steps
            for record in losses(run).read():
                if record.step > told:
                    told = record.step
                    progress(record)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _first_cause(error: BaseException) -> str:
    """Return the words of the error in the worker, without Ray's wrapping."""
    failures = getattr(error, "worker_failures", None) or {}
    for failure in failures.values():
        cause = getattr(failure, "cause", None) or failure.__cause__ or failure
        return f"{type(cause).__name__}: {cause}"
    return f"{type(error).__name__}: {error}"
