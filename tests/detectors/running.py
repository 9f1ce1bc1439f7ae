"""What the tests of networks share: stand-ins, and a spec over batches of mixed sizes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from detectors.base import Annotation, Image, Spec
from detectors.graph import Graph, annotate


def liven(net: nn.Module) -> nn.Module:
    """Give convolutions random weights that let a picture through: a stand-in for training."""
    generator = torch.Generator().manual_seed(7)
    for layer in net.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return net


def graph_on(folder: Path, network: ModuleType, spec: Spec) -> Iterator[Graph]:
    """Yield a graph of one spec whose network, of a module, is what a folder has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "resolve", lambda name: folder)
        yield Graph([spec])


def their_pixels(folder: Path, image: Image) -> torch.Tensor:
    """What transformers' own processor gives a network for an image."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder)
    return processor(images=image, return_tensors="pt")["pixel_values"]


def maps(graph: Graph, spec: Spec, images: Sequence[Image]) -> list[np.ndarray]:
    made = [
        annotate(spec, image, findings, np.random.default_rng(0))
        for image, findings in zip(images, graph.run(images), strict=True)
    ]
    assert all(isinstance(result, Annotation) for result in made), made
    return [result.map for result in made]


def mixed(photographs: Sequence[Image]) -> list[Image]:
    """Five pictures of three sizes."""
    sizes = [(64, 64), (64, 128), (64, 64), (128, 64), (64, 64)]
    return [
        photographs[at % len(photographs)][7 * at : 7 * at + height, 9 * at : 9 * at + width].copy()
        for at, (height, width) in enumerate(sizes)
    ]


def batched(graph: Graph, spec: Spec, images: Sequence[Image]) -> Iterator[list[Any]]:
    """Findings of all images one by one, by batches of 2, and all of a size at once."""
    before = graph.micro_batch
    for count in (1, 2, 8):
        graph.micro_batch = count
        yield [findings[spec.network] for findings in graph.run(images)]
    graph.micro_batch = before
