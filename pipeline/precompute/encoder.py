"""A worker that holds a base's locked networks and encodes units."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.compute as pc
import torch
from pydantic import BaseModel, ConfigDict, Field

from catalog.dataset.commits import Commit, read_commit
from catalog.dataset.dataset import TO_READ, Dataset, View
from catalog.dataset.latents import (
    Identity,
    LatentsFolder,
    Precision,
    Stored,
    UnitLatents,
    image_name,
)
from catalog.images import Image, decode_image
from catalog.sample import Sample
from detectors.runtimes.on_torch import DTYPES
from pipeline.unit.streams import chunks, map_ahead
from training.measure.batches import in_batches
from training.model.base import Base, load_base, locate_base
from training.model.latents import identity_of, image_moments, text_embeddings

_BATCHES_AHEAD = 2  # decoded before the networks ask for them
_CAPTIONS = 64  # at once: they take little memory


class Precompute(BaseModel):
    """What to encode, and with what; JSON, so that it passes to other processes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str = Field(description="URI")
    base: str = Field(
        description="Stable Diffusion or SDXL: a folder in diffusers layout, or a hub id"
    )
    revision: str | None = Field(None, description="of a hub id")
    local_files_only: bool = Field(False, description="never ask the hub")
    vae: str | None = Field(None, description="autoencoder in place of the base's")
    precision: Precision = Field("fp32", description="of the networks")
    stored: Stored = Field("fp16", description="of the numbers on disk")
    text: bool = Field(True, description="captions, too")
    mirrored: bool = Field(False, description="the mirrored images, too")
    device: str = Field("cpu", description="of the networks")
    batch_size: int = Field(
        8, ge=1, description="images at once; training's own gives its very numbers on a CPU"
    )
    threads: int = Field(2, ge=1, description="that decode beside the networks")


class Encoder:
    """Encodes and commits units, one after the other.

    Args:
        request: what to encode.

    Raises:
        BaseModelError: the base is not here.
        DatasetError: there is no such dataset, or it is not finished.
    """

    def __init__(self, request: Precompute) -> None:
        self._request = request
        self._base = _load_networks(request)
        self._view = Dataset.open(request.dataset).view(columns=(*TO_READ, "caption"))
        self._folder = LatentsFolder(request.dataset, identity(request))
        self._batch = request.batch_size

    def run(self, unit_id: str) -> UnitLatents:
        """Encode one unit and commit it.

        Raises:
            CatalogError: a sample is damaged.
            DataError: a number is too large.
        """
        commit = read_commit(self._request.dataset, unit_id)
        assert commit is not None, unit_id
        samples = self._samples(commit)
        arrays: dict[str, np.ndarray] = {}
        with ThreadPoolExecutor(self._request.threads) as pool:
            for places in _by_size(samples):
                arrays |= self._images(samples, places, pool)
        if self._request.text:
            arrays |= self._texts(samples)
        return self._folder.commit(commit, arrays, len(samples))

    def _samples(self, commit: Commit) -> View:
        table = self._view.table
        rows = table.filter(pc.equal(table["shard"], commit.shard.name))
        return View(self._request.dataset, commit.unit_id, rows)

    def _images(
        self, samples: View, places: Sequence[int], pool: ThreadPoolExecutor
    ) -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {}
        ahead = _BATCHES_AHEAD * self._request.batch_size
        decoded = map_ahead(pool, lambda place: _decode(samples.read(place)), places, ahead=ahead)
        for batch in chunks(decoded, self._request.batch_size):
            keys, images = zip(*batch, strict=True)
            made = self._moments(images)
            arrays |= {image_name(key): one for key, one in zip(keys, made, strict=True)}
            if self._request.mirrored:
                made = self._moments([image[:, ::-1] for image in images])
                names = (image_name(key, mirrored=True) for key in keys)
                arrays |= dict(zip(names, made, strict=True))
        return arrays

    def _moments(self, images: Sequence[Image]) -> np.ndarray:
        """Encode images of one size, in smaller batches from then on where memory runs out.

        A batch is filled up with its last image: libraries sum in another order in batches of
        other sizes, and training's are full.
        """
        filled = [*images, *[images[-1]] * (-len(images) % self._batch)]

        def encode(batch: list[int]) -> np.ndarray:
            return image_moments(self._base, [filled[at] for at in batch])

        made = in_batches(encode, range(len(filled)), self._batch, of="latents")
        self._batch = len(made[0][0])
        return np.concatenate([moments for _, moments in made])[: len(images)]

    def _texts(self, samples: View) -> dict[str, np.ndarray]:
        captions = sorted({"", *samples.table["caption"].to_pylist()})
        arrays: dict[str, np.ndarray] = {}
        for some in chunks(captions, _CAPTIONS):
            arrays |= text_embeddings(self._base, some)
        return arrays


def _load_networks(request: Precompute) -> Base:
    """Load the base on the device, in the precision asked for."""
    base = load_base(
        request.base,
        revision=request.revision,
        local_files_only=request.local_files_only,
        dtype=DTYPES[request.precision],
        encoders_only=True,
        vae=request.vae,
    )
    for network in (base.vae, *base.text_encoders):
        network.to(torch.device(request.device))
    return base


def identity(request: Precompute) -> Identity:
    """Return what the latents of a request are kept under; no network is loaded."""
    files = locate_base(
        request.base,
        revision=request.revision,
        local_files_only=request.local_files_only,
        vae=request.vae,
    )
    return identity_of(
        files,
        precision=request.precision,
        stored=request.stored,
        text=request.text,
        mirrored=request.mirrored,
    )


def _decode(sample: Sample) -> tuple[str, Image]:
    return sample.key, decode_image(sample.image)


def _by_size(samples: View) -> Iterator[list[int]]:
    """Yield the places of the samples of each size, in order."""
    sizes = zip(
        samples.table["height"].to_pylist(), samples.table["width"].to_pylist(), strict=True
    )
    groups: dict[tuple[int, int], list[int]] = {}
    for place, size in enumerate(sizes):
        groups.setdefault(size, []).append(place)
    yield from groups.values()
