"""Pictures against their prompts (CLIP score) and against photographs (FID).

Both need networks that this project does not ship. Where one is not on this machine, the measure
says so and how to get it; nothing is fetched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64

from catalog.images import Image

CLIP = "openai/clip-vit-large-patch14"
INCEPTION_FILE = "inception_v3_google-0cc3c7bd.pth"
INCEPTION_URL = f"https://download.pytorch.org/models/{INCEPTION_FILE}"

_INCEPTION_SIDE = 299  # pixels
_BATCH = 16
_ENOUGH = 2048  # samples; with fewer, the covariance of 2,048 features has not its full rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Why a measure was not taken, and what to do about it."""

    why: str


class ClipScore:
    """100 times the cosine between a picture and its prompt as CLIP sees them (Hessel, 2021)."""

    def __init__(self, model: Any, processor: Any, name: str) -> None:
        self._model = model
        self._processor = processor
        self.name = name

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Image], prompts: Sequence[str]) -> float:
        """Return the mean over pictures with their prompts, 0..100; negative ones count as 0."""
        cosines: list[float] = []
        for at in range(0, len(pictures), _BATCH):
            inputs = self._processor(
                text=list(prompts[at : at + _BATCH]),
                images=list(pictures[at : at + _BATCH]),
                return_tensors="pt",
                padding=True,
                truncation=True,
            ).to(self._model.device)
            found = self._model(**inputs)
            image, text = found.image_embeds, found.text_embeds
            cosines += torch.nn.functional.cosine_similarity(image, text).tolist()
        return float(100 * np.maximum(cosines, 0).mean())


class Inception:
    """Features of torchvision's Inception v3.

    Published FIDs use another port of the network: compare these with one another only.
    """

    def __init__(self, model: torch.nn.Module, device: str) -> None:
        self._model = model.eval().to(device)
        self._device = device

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Image]) -> Float64[np.ndarray, "n 2048"]:
        """Return each picture's features."""
        rows = [self._model(_square(one).to(self._device))[0].cpu().double() for one in pictures]
        return torch.stack(rows).numpy()


def load_clip(name: str, device: str) -> ClipScore | Missing:
    """Load a CLIP model: a folder in transformers' layout, or a hub id that is in the cache."""
    from transformers import CLIPModel, CLIPProcessor

    try:
        model = CLIPModel.from_pretrained(name, local_files_only=True)
        processor = CLIPProcessor.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError):
        return Missing(
            why=f"CLIP score: not measured, {name} is not on this machine; fetch it with "
            f"`hf download {name}`, or name a folder that holds a CLIP model"
        )
    return ClipScore(model.eval().to(device), processor, name)


def load_inception(device: str) -> Inception | Missing:
    """Load Inception v3 out of torch hub's folder of checkpoints."""
    from torchvision.models import inception_v3

    path = Path(torch.hub.get_dir(), "checkpoints", INCEPTION_FILE)
    if not path.is_file():
        return Missing(why=f"FID: not measured, {path} is missing; put {INCEPTION_URL} there")
    model = inception_v3(weights=None, init_weights=False, transform_input=True)
    model.load_state_dict(torch.load(path, weights_only=True))
    model.fc = torch.nn.Identity()
    return Inception(model, device)


def frechet_distance(
    one: Float64[np.ndarray, "n features"], other: Float64[np.ndarray, "m features"]
) -> float:
    """Return the Frechet distance of two sets of features taken as Gaussians (Heusel, 2017).

    Each set holds two rows or more. The trace of the covariances' geometric mean is the sum of the
    singular values of one set's factor times the other's: no matrix root is taken.
    """
    means = one.mean(axis=0) - other.mean(axis=0)
    left, right = _factor(one), _factor(other)
    cross = np.linalg.svd(left @ right.T, compute_uv=False).sum()
    distance = means @ means + (left**2).sum() + (right**2).sum() - 2 * cross
    return max(0.0, float(distance))


def few_samples(count: int) -> str | None:
    """Return a warning where an FID of so many pictures says little."""
    if count >= _ENOUGH:
        return None
    return f"FID of {count:,} pictures is too high and noisy: {_ENOUGH:,} or more are usual."


def _factor(features: Float64[np.ndarray, "n features"]) -> Float64[np.ndarray, "k features"]:
    """Return a matrix whose product with its transpose, transpose first, is the covariance."""
    centred = features - features.mean(axis=0)
    scaled = centred / np.sqrt(len(features) - 1)
    return np.asarray(np.linalg.qr(scaled, mode="r"))


def _square(picture: Image) -> Float[torch.Tensor, "1 3 299 299"]:
    """Return a picture as the network takes it: ImageNet's normalisation, squeezed to a square."""
    unit = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
    size = (_INCEPTION_SIDE, _INCEPTION_SIDE)
    resized = torch.nn.functional.interpolate(unit, size, mode="bilinear", antialias=True)
    mean, std = (
        torch.tensor(values)[None, :, None, None]
        for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    return (resized - mean) / std
