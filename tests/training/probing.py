"""A view of drawn pictures with their Canny edges, and samplers whose obedience is known."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from catalog.png import encode_png
from catalog.sample import Sample
from detectors.canny import CannySpec
from training.measure.adherence import AdherenceProbe, probe_samples
from training.measure.redetect import Redetector
from training.model.objective import Inputs

SPEC = CannySpec(low=(60, 100), gap=(60, 100))


def photograph(number: int, size: int = 64) -> np.ndarray:
    """Two rectangles somewhere."""
    generator = np.random.default_rng(number)
    image = np.zeros((size, size, 3), np.uint8)
    for colour in ((250, 40, 40), (40, 250, 250)):
        top, left = generator.integers(2, size // 2, 2)
        height, width = generator.integers(size // 5, size // 2 - 2, 2)
        image[top : top + height, left : left + width] = colour
    return image


class Photographs:
    """A view of pictures with their Canny edges."""

    name, fingerprint, conditions = "all", "f00d", ("canny",)

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes

    def __len__(self) -> int:
        return len(self.sizes)

    def keys(self) -> list[str]:
        return [f"{row:032x}" for row in range(len(self.sizes))]

    def row_sizes(self) -> np.ndarray:
        return np.array([(side, side) for side in self.sizes])

    def read(self, index: int) -> Sample:
        image = photograph(index, self.sizes[index])
        made = SPEC.annotate(image, None, np.random.default_rng(index))
        return Sample(
            key=f"{index:032x}",
            image=encode_png(image),
            image_format="png",
            conditions={"canny": encode_png(made.map)},
            caption=f"picture {index}",
            metadata={"conditions": {"canny": made.parameters}},
        )


def make_probe(*sizes: int) -> AdherenceProbe:
    redetector = Redetector(SPEC)
    samples = probe_samples(Photographs(sizes), "canny", redetector)
    return AdherenceProbe(samples, redetector, seed=7)


class Obedient:
    """Gives the photograph of which it is shown the condition; keeps what it was asked."""

    def __init__(self, probe: AdherenceProbe) -> None:
        self.known = {sample.hint.tobytes(): sample.image for sample in probe.samples}
        self.calls: list[tuple[int, tuple[str, ...], tuple[int, ...]]] = []

    def __call__(self, hints, prompts, seeds):
        self.calls.append((len(hints), tuple(prompts), tuple(seeds)))
        return [self.known[hint.tobytes()] for hint in hints]


def heeding(inputs: Inputs) -> Callable[[Inputs], torch.Tensor]:
    """Return a loss of rows: how far each condition is from its own, which its noise tells."""
    own = {
        noise.numpy().tobytes(): hint for noise, hint in zip(inputs.noise, inputs.hint, strict=True)
    }

    def loss(given: Inputs) -> torch.Tensor:
        true = torch.stack([own[noise.numpy().tobytes()] for noise in given.noise])
        return ((given.hint - true) ** 2).mean()

    return loss


def blind(hints, prompts, seeds):
    return [photograph(1000 + seed, len(hint)) for hint, seed in zip(hints, seeds, strict=True)]
