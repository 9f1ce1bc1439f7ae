"""Photographs, and the upstream package without its noise."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from catalog.images import decode_image, fit
from detectors.base import Image

SHARED = Path(__file__).parents[2].parent / "shared"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Fix torch's threads as a worker does: their number moves last bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def photographs() -> list[Image]:
    """Return three photographs out of scikit-image and matplotlib, 256 x 256."""
    import matplotlib
    import skimage

    data = Path(skimage.__file__).parent / "data"
    names = [data / "astronaut.png", data / "coffee.png"]
    names.append(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    return [fit(decode_image(name.read_bytes()), resolution=256, crop="center") for name in names]


@pytest.fixture(scope="session")
def kodak() -> Callable[[int], list[Image]]:
    """Return photographs of the Kodak set at their own size; skips where it is absent."""

    def load(count: int) -> list[Image]:
        names = sorted((SHARED / "data" / "kodak24").glob("*.png"))
        if not names:
            pytest.skip("the Kodak photographs are not beside this checkout")
        return [decode_image(name.read_bytes()) for name in names[:count]]

    return load


@pytest.fixture(scope="session")
def red_and_blue() -> Image:
    """Return a picture whose left half is red and whose right half is blue, with shapes in both."""
    picture = np.zeros((128, 128, 3), np.uint8)
    picture[:, :64, 0] = 200
    picture[:, 64:, 2] = 120
    picture[32:64, 16:48] = (255, 220, 0)
    picture[64:96, 80:112] = (0, 255, 90)
    return picture


@pytest.fixture(scope="session")
def controlnet_aux_quiet() -> None:
    """Import controlnet_aux with its warnings silenced; pytest would make errors of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import controlnet_aux  # noqa: F401
