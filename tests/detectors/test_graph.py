"""Each network is loaded once and run once for an image; what fails costs one image."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from detectors.base import (
    Annotation,
    Batch,
    ConditionName,
    Image,
    NetworkSpec,
    Precision,
    Refusal,
    Result,
    Spec,
)
from detectors.graph import Graph, annotate, load


class MeanNetwork(NetworkSpec):
    """A test double: finds each image's mean, and keeps what it was called with."""

    checkpoint: str = "none"
    memory: int = 100  # images; a larger batch is out of memory

    loads: ClassVar[list[str]] = []
    batches: ClassVar[list[tuple[int, ...]]] = []

    def load(self, device: str, precision: Precision) -> "MeanNetwork":
        self.loads.append(self.checkpoint)
        return self

    def __call__(self, images: Batch) -> list[float]:
        import torch

        if len(images) > self.memory:
            raise torch.OutOfMemoryError("the double's memory is full")
        self.batches.append(images.shape)
        if (images == 13).all(axis=(1, 2, 3)).any():
            raise FloatingPointError("the double fails on this picture")
        return [float(image.mean()) for image in images]


class MeanSpec(Spec):
    condition: ConditionName = "mean"
    checkpoint: str = "none"
    memory: int = 100

    @property
    def network(self) -> MeanNetwork:
        return MeanNetwork(checkpoint=self.checkpoint, memory=self.memory)

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        if found > 200:
            return Refusal(rule="bright", value=found, threshold=200)
        return Annotation(map=np.full(image.shape[:2], round(found), np.uint8))


class PlainSpec(Spec):
    condition: ConditionName = "plain"

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        assert found is None
        return Annotation(map=image[:, :, 0])


@pytest.fixture(autouse=True)
def _forget() -> None:
    MeanNetwork.loads.clear()
    MeanNetwork.batches.clear()


def flat(level: int, size: tuple[int, int] = (8, 8)) -> Image:
    return np.full((*size, 3), level, np.uint8)


def draws(count: int) -> Sequence[np.random.Generator]:
    return [np.random.default_rng(number) for number in range(count)]


def test_equal_networks_are_loaded_and_run_once() -> None:
    specs = [MeanSpec(condition="a"), MeanSpec(condition="b"), PlainSpec()]
    graph = Graph([*specs, MeanSpec(condition="c", checkpoint="other")], device="gpu-double")
    assert MeanNetwork.loads == ["none", "other"]
    graph.run([flat(1), flat(2)])
    assert MeanNetwork.batches == [(2, 8, 8, 3)] * 2


def test_images_of_one_size_share_batches_and_come_back_in_order() -> None:
    spec = MeanSpec()
    graph = Graph([spec], device="gpu-double", micro_batch=2)
    sizes = [(8, 8), (8, 16), (8, 8), (8, 8), (8, 16)]
    found = graph.run([flat(10 * at, size) for at, size in enumerate(sizes)])
    assert [findings[spec.network] for findings in found] == [0, 10, 20, 30, 40]
    assert sorted(shape[0] for shape in MeanNetwork.batches) == [1, 2, 2]


def test_a_cpu_takes_one_image_at_a_time() -> None:
    Graph([MeanSpec()], device="cpu", micro_batch=8).run([flat(1)] * 3)
    assert [shape[0] for shape in MeanNetwork.batches] == [1, 1, 1]


class ArithmeticNetwork(NetworkSpec):
    """A test double: finds how torch was set to compute."""

    checkpoint: str = "none"

    def load(self, device: str, precision: Precision) -> "ArithmeticNetwork":
        return self

    def __call__(self, images: Batch) -> list[tuple[bool | str, ...]]:
        return [arithmetic() for _ in images]


def arithmetic() -> tuple[bool | str, ...]:
    import torch

    cudnn = torch.backends.cudnn
    products = torch.get_float32_matmul_precision()
    return products, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark


@pytest.mark.parametrize(
    ("precision", "products", "tf32"),
    [("fp32", "highest", False), ("tf32", "high", True), ("bf16", "highest", False)],
)
def test_a_gpu_computes_in_the_precision_that_is_stated(
    monkeypatch: pytest.MonkeyPatch, precision: Precision, products: str, tf32: bool
) -> None:
    """Also within a training, which lets its own products use TF32; that goes on as it was."""
    import torch

    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    torch.set_float32_matmul_precision("high")
    try:
        before = arithmetic()
        graph = Graph([], more=[ArithmeticNetwork()], device="cuda", precision=precision)
        (found,) = graph.run([flat(1)])
        assert found[ArithmeticNetwork()] == (products, tf32, True, False)
        assert arithmetic() == before
    finally:
        torch.set_float32_matmul_precision("highest")


def test_an_image_that_a_network_fails_on_costs_no_other() -> None:
    spec = MeanSpec()
    images = [flat(1), flat(13), flat(3)]
    found = Graph([spec, PlainSpec()], device="gpu-double").run(images)
    assert [type(findings[spec.network]) for findings in found] == [
        float,
        FloatingPointError,
        float,
    ]
    with pytest.raises(FloatingPointError, match="this picture"):
        annotate(spec, images[1], found[1], draws(1)[0])
    made = annotate(PlainSpec(), images[1], found[1], draws(1)[0])
    assert isinstance(made, Annotation)


def test_out_of_memory_halves_the_batch_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    spec = MeanSpec(memory=3)
    graph = Graph([spec], device="gpu-double", micro_batch=8)
    found = graph.run([flat(level) for level in range(20, 40)])
    assert [findings[spec.network] for findings in found] == list(range(20, 40))
    assert graph.micro_batch == 2
    assert [record.message for record in caplog.records] == [
        "out of device memory: micro-batch now 4",
        "out of device memory: micro-batch now 2",
    ]


def test_an_image_too_large_for_the_memory_is_that_images_failure() -> None:
    import torch

    spec = MeanSpec(memory=0)
    (found,) = Graph([spec], device="gpu-double").run([flat(1)])
    assert isinstance(found[spec.network], torch.OutOfMemoryError)


def test_a_spec_loads_by_itself() -> None:
    detect = load(MeanSpec(), "cpu")
    dark, bright = detect([flat(7), flat(255)], draws(2))
    assert isinstance(dark, Annotation)
    assert (dark.map == 7).all()
    assert bright == Refusal(rule="bright", value=255, threshold=200)


def test_a_label_stands_in_for_a_finding() -> None:
    class LabelSpec(Spec):
        label = "classes"

        def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
            return Annotation(map=found.astype(np.uint8))

    label = np.arange(64, dtype=np.int32).reshape(8, 8)
    made = annotate(LabelSpec(condition="x"), flat(0), {}, draws(1)[0], label)
    assert isinstance(made, Annotation)
    assert (made.map == label).all()
