"""OpenPifPaf by its own package, whose predictor decodes too."""

from typing import Any

import numpy as np
import torch

from detectors.base import Batch, Image
from detectors.errors import DetectorError
from detectors.keypoints import Person
from detectors.openpifpaf import VERSION


class OpenPifPaf:
    """Composite fields (Kreiss et al., 2021); the package fetches its checkpoints itself."""

    def __init__(self, checkpoint: str, device: str) -> None:
        try:
            import openpifpaf
        except ImportError as error:
            raise DetectorError(
                "openpifpaf needs the package of that name, which builds against older versions "
                f"of torch only: pip install openpifpaf=={VERSION} in an environment of its own "
                "(with Ray, a runtime_env), or take detector movenet or openpose_light"
            ) from error
        openpifpaf.Predictor.device = torch.device(device)
        self._predictor: Any = openpifpaf.Predictor(checkpoint=checkpoint)

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
