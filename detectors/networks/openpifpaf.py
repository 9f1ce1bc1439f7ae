"""OpenPifPaf by its own package, whose predictor decodes too."""

from typing import Any

import numpy as np
import torch

from detectors.base import Batch, Image
from detectors.keypoints import Person


class OpenPifPaf:
    """Composite fields (Kreiss et al., 2021); the package fetches its checkpoints itself."""

    def __init__(self, predictor: Any, checkpoint: str, device: str) -> None:
        """Load a checkpoint by the package's class `Predictor`."""
        predictor.device = torch.device(device)
        self._predictor = predictor(checkpoint=checkpoint)

    def __call__(self, images: Batch) -> list[list[Person]]:
        """Return the people of each image."""
        return [self._people(image) for image in images]

    def _people(self, image: Image) -> list[Person]:
        annotations, _, _ = self._predictor.numpy_image(image)
        people = []
        for annotation in annotations:
            keypoints = np.array(annotation.data, np.float64)  # x, y, score; score 0: not found
            keypoints[keypoints[:, 2] <= 0] = np.nan
            people.append(Person(keypoints=keypoints, score=float(annotation.score)))
        return people
