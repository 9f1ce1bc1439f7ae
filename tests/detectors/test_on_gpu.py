"""On a GPU: the maps of the CPU, in every precision, and batches that halve where memory ends."""

import numpy as np
import pytest
import torch

from detectors.base import Image, Precision
from detectors.graph import Graph
from detectors.hed import HedSpec
from tests.weights import need

pytestmark = pytest.mark.gpu


@pytest.fixture
def spec() -> HedSpec:
    need("hed_bsds500")
    return HedSpec()


@pytest.mark.parametrize(("precision", "levels"), [("fp32", 1), ("fp16", 3), ("bf16", 8)])
def test_edges_are_those_of_the_processor(
    spec: HedSpec, photographs: list[Image], precision: Precision, levels: float
) -> None:
    (there,) = Graph([spec], device="cuda", precision=precision).run(photographs[:1])
    (here,) = Graph([spec]).run(photographs[:1])
    assert np.abs(there[spec.network] - here[spec.network]).mean() * 255 < levels


def test_a_batch_that_is_too_large_is_halved(spec: HedSpec, photographs: list[Image]) -> None:
    graph = Graph([spec], device="cuda", micro_batch=4096)
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        found = graph.run([photographs[0]] * 256)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 1 <= graph.micro_batch < 256
    assert all(isinstance(findings[spec.network], np.ndarray) for findings in found)
