"""Conditions wanted to networks needed: each is loaded once and run once for an image.

{hed, scribble} cost one HED, {depth, normal} one MiDaS, openpose at several thresholds one body
network: specs whose `network` is equal share it.
"""

import logging
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeAlias

import numpy as np

from detectors.base import (
    Image,
    Network,
    NetworkSpec,
    Precision,
    Result,
    Spec,
)

log = logging.getLogger(__name__)

Findings: TypeAlias = dict[NetworkSpec, Any]
"""An image's findings by network; an Exception stands for a network that failed on the image."""


class Detector(Protocol):
    """A spec with its network loaded."""

    def __call__(
        self, images: Sequence[Image], generators: Sequence[np.random.Generator]
    ) -> list[Result]:
        """Annotate images; one generator an image is its only source of randomness."""
        ...


class Graph:
    """The networks of all wanted conditions, on one device."""

    def __init__(
        self,
        specs: Sequence[Spec],
        *,
        more: Sequence[NetworkSpec] = (),
        device: str = "cpu",
        precision: Precision = "fp32",
        micro_batch: int = 8,
    ) -> None:
        """Load every network that `specs` need.

        Args:
            specs: conditions wanted.
            more: networks whose findings are wanted beside.
            device: for example ``cpu`` or ``cuda:0``.
            precision: of the networks' weights and activations.
            micro_batch: images that a network is given at once. On a CPU always one: a batch there
                takes longer an image, not shorter.
        """
        needed = [spec.network for spec in specs if spec.network is not None]
        wanted = dict.fromkeys([*needed, *more])
        self._networks: dict[NetworkSpec, Network] = {
            spec: spec.load(device, precision) for spec in wanted
        }
        self._device, self._precision = device, precision
        self.micro_batch = 1 if device == "cpu" else micro_batch
        """Images at once; halved, and logged, whenever the device's memory does not suffice."""
        self.images_run = 0
        """Images that the networks have looked at."""

    @property
    def networks(self) -> tuple[NetworkSpec, ...]:
        """The networks that are loaded."""
        return tuple(self._networks)

    def run(
        self, images: Sequence[Image], wanted: Sequence[Collection[NetworkSpec]] | None = None
    ) -> list[Findings]:
        """Run networks over images of any sizes; those of one size share micro-batches.

        What fails on one image stands in its findings as the exception, and costs no other image.

        Args:
            images: uint8 RGB (h, w, 3) each.
            wanted: for each image the networks to run on it; default every one.
        """
        findings: list[Findings] = [{} for _ in images]
        wanted = [self._networks] * len(images) if wanted is None else wanted
        self.images_run += sum(map(bool, wanted))
        for of_one_size in by_size(images):
            for spec, network in self._networks.items():
                indices = [at for at in of_one_size if spec in wanted[at]]
                for index, found in zip(
                    indices, self._run(network, [images[i] for i in indices]), strict=True
                ):
                    findings[index][spec] = found
        return findings

    def detector(self, spec: Spec) -> Detector:
        """Return `spec`, one of those that were loaded, as a function of images.

        The function raises what a network or the spec raises.
        """

        def detect(
            images: Sequence[Image], generators: Sequence[np.random.Generator]
        ) -> list[Result]:
            rows = zip(images, self.run(images), generators, strict=True)
            return [annotate(spec, image, findings, draws) for image, findings, draws in rows]

        return detect

    def _arithmetic(self) -> AbstractContextManager[None]:
        """Return what makes torch compute in the stated precision; a CPU does so anyway."""
        if self._device == "cpu":
            return nullcontext()
        from detectors.runtimes.on_torch import stated

        return stated(self._precision)

    def _run(self, network: Network, images: list[Image]) -> list[Any]:
        """Return a finding for each image; retries a failed batch in halves, down to one image."""
        found: list[Any] = []
        while len(found) < len(images):
            batch = images[len(found) : len(found) + self.micro_batch]
            try:
                with self._arithmetic():
                    found.extend(network(np.stack(batch)))
            except Exception as error:  # a row says failed:<class>; the others go on
                if out_of_memory(error) and len(batch) > 1:
                    self.micro_batch = len(batch) // 2
                    log.warning("out of device memory: micro-batch now %d", self.micro_batch)
                elif len(batch) == 1:
                    found.append(error)
                else:
                    found.extend(one for image in batch for one in self._run(network, [image]))
        return found


def load(spec: Spec, device: str = "cpu", precision: Precision = "fp32") -> Detector:
    """Load one spec alone, as a function of images.

    Raises:
        WeightsError: its checkpoint is not here and cannot be had.
    """
    return Graph([spec], device=device, precision=precision).detector(spec)


def annotate(
    spec: Spec,
    image: Image,
    findings: Findings,
    generator: np.random.Generator,
    label: np.ndarray | None = None,
) -> Result:
    """Finish one condition of one image; raises what its network or the spec raised."""
    found = findings[spec.network] if spec.network is not None else label
    if isinstance(found, Exception):
        raise found
    result = spec.annotate(image, found, generator)
    made = getattr(result, "map", None)
    assert made is None or made.shape[:2] == image.shape[:2], spec.condition
    return result


def by_size(images: Sequence[Image]) -> list[list[int]]:
    """Return the indices of the images of each size."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(image.shape, []).append(index)
    return list(groups.values())


def out_of_memory(error: Exception) -> bool:
    """Say whether a device's memory did not suffice."""
    import torch

    return isinstance(error, torch.OutOfMemoryError)
