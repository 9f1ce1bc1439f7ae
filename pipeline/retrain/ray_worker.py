"""What a worker of Ray Train runs, and whom it tells of a mistake.

Ray's own processes and the one that is told import this, too: so torch and diffusers come only with
the training itself, in the workers.
"""

import os
from typing import Any

import ray

from catalog.errors import CatalogError, StorageUnavailable
from detectors.errors import DetectorError
from pipeline.errors import UsageError
from training.errors import DataUnavailable, TrainingError


class Mistakes:
    """An actor that the workers tell what only a person can mend: trying again would not help."""

    def __init__(self) -> None:
        self._said: list[str] = []

    def tell(self, words: str) -> None:
        """Keep what a worker says."""
        self._said.append(words)

    def said(self) -> list[str]:
        """Return what was said."""
        return self._said


def work(told: dict[str, Any]) -> None:
    """Train, in each worker.

    Args:
        told: ``settings``, a `training.settings.config.TrainConfig` as JSON types, and
            ``mistakes``, the actor.
    """
    try:
        _train(told["settings"])
    except (DataUnavailable, StorageUnavailable):
        raise  # of the place: another try may find it
    except (CatalogError, DetectorError, TrainingError, UsageError) as error:
        ray.get(told["mistakes"].tell.remote(str(error)))


def _train(settings: dict[str, Any]) -> None:
    from catalog.dataset.dataset import Dataset
    from pipeline.recipe.made_by import condition_spec
    from training.run.device import for_device
    from training.run.loop import train
    from training.settings.config import TrainConfig

    if not ray.get_gpu_ids():
        os.environ["ACCELERATE_USE_CPU"] = "true"
    config, _ = for_device(TrainConfig.model_validate(settings))
    spec = condition_spec(Dataset.open(config.dataset), config.condition)
    train(config, lambda report: None, spec=spec)
