"""A base with random weights, a view without files, and settings for runs of a few steps."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from catalog.sample import Sample
from tests.random_base import write_random_base, write_random_sdxl_base
from tests.training.stepping import forget_accelerate
from training.model.base import Base, load_base
from training.settings.config import TrainConfig


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeView:
    """Rows drawn from their number: noise, with its bright pixels as the condition."""

    rows: int = 5
    sizes: tuple[tuple[int, int], ...] = ((64, 64),)  # (h, w); row i has size i modulo their number
    tells_sizes: bool = True
    hint_size: tuple[int, int] | None = None
    name: str = "all"
    fingerprint: str = "f00d"
    conditions: tuple[str, ...] = ("canny",)

    def __len__(self) -> int:
        return self.rows

    def keys(self) -> list[str]:
        return [f"{row:032x}" for row in range(self.rows)]

    def row_sizes(self) -> np.ndarray | None:
        if not self.tells_sizes:
            return None
        return np.array([self.sizes[row % len(self.sizes)] for row in range(self.rows)])

    def read(self, index: int) -> Sample:
        height, width = self.sizes[index % len(self.sizes)]
        pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        hint = np.where(pixels > 127, 255, 0).astype(np.uint8)
        if self.hint_size is not None:
            hint = np.zeros((*self.hint_size, 3), np.uint8)
        return Sample(
            key=f"{index:032x}",
            image=png(pixels),
            image_format="png",
            conditions={name: png(hint) for name in self.conditions},
            caption=f"picture {index}",
            metadata={},
        )


@pytest.fixture(scope="session")
def view_type() -> type[FakeView]:
    return FakeView


@pytest.fixture(scope="session")
def whole_base_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A base with all of Stable Diffusion's parts: 12 encoder outputs and a middle block."""
    folder = tmp_path_factory.mktemp("base") / "whole"
    write_random_base(str(folder), seed=0)
    return str(folder)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A base with fewer parts of each kind: a run of a few steps mostly loads and saves them."""
    folder = tmp_path_factory.mktemp("base") / "random"
    write_random_base(str(folder), seed=0, resolutions=2, layers=1)
    return str(folder)


@pytest.fixture(scope="session")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny SDXL with random weights."""
    folder = tmp_path_factory.mktemp("base") / "sdxl"
    write_random_sdxl_base(str(folder), seed=0)
    return str(folder)


@pytest.fixture(scope="session")
def sdxl(sdxl_folder: str) -> Base:
    return load_base(sdxl_folder)


@pytest.fixture(scope="session")
def base(base_folder: str) -> Base:
    return load_base(base_folder)


@pytest.fixture(scope="session")
def config_of(base_folder: str) -> Callable[..., TrainConfig]:
    """Return what makes the settings of a short run into a folder."""

    def make(folder: Path, **changes: Any) -> TrainConfig:
        settings = {
            "dataset": "unused",
            "condition": "canny",
            "base": base_folder,
            "out": str(folder),
            "steps": 4,
            "batch_size": 2,
            "learning_rate": 1e-3,
            "checkpoint_every": 2,
            "log_every": 1,
        }
        return TrainConfig(**{**settings, **changes})

    return make


@pytest.fixture
def make_config(
    config_of: Callable[..., TrainConfig], tmp_path: Path
) -> Callable[..., TrainConfig]:
    return partial(config_of, tmp_path / "run")


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    yield
    forget_accelerate()
