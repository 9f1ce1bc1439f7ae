"""Views of which rows are damaged, or whose storage does not answer."""

from dataclasses import dataclass, field, replace

import numpy as np

from catalog.errors import CorruptSampleError
from catalog.sample import Sample
from tests.training.conftest import FakeView, png


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedView(FakeView):
    """Rows whose bytes changed, rows that are no picture, and rows whose hint has another size."""

    changed: tuple[int, ...] = ()
    undecodable: tuple[int, ...] = ()
    unequal: tuple[int, ...] = ()

    def read(self, index: int) -> Sample:
        # FakeView by name: a dataclass with slots is another class than the one super() means
        sample = FakeView.read(self, index)
        if index in self.changed:
            raise CorruptSampleError(f"the bytes of {sample.key} changed after the commit")
        if index in self.undecodable:
            return replace(sample, image=sample.image[: len(sample.image) // 2])
        if index in self.unequal:
            other = png(np.zeros((32, 64, 3), np.uint8))
            return replace(sample, conditions=dict.fromkeys(sample.conditions, other))
        return sample


@dataclass(frozen=True, slots=True, kw_only=True)
class SilentView(FakeView):
    """Rows that the storage gives after `times` errors, or never."""

    times: int = 1
    error: Exception = field(default_factory=lambda: OSError(5, "Input/output error", "/mnt/a.tar"))
    met: list[int] = field(default_factory=list)

    def read(self, index: int) -> Sample:
        self.met.append(index)
        if self.met.count(index) <= self.times:
            raise self.error
        return FakeView.read(self, index)
