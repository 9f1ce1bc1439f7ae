"""Golden maps: python -m tests.goldens.regenerate writes them again; look at what changed."""

from pathlib import Path

import numpy as np

from catalog.images import decode_image, fit
from catalog.png import encode_png
from detectors.base import Annotation, Image, Spec, generator_for
from detectors.canny import CannySpec

FOLDER = Path(__file__).parent
GOLDENS: dict[str, Spec] = {
    "coffee.canny.png": CannySpec(),
    "coffee.canny_fixed.png": CannySpec(low=100, gap=100),
}


def coffee() -> Image:
    """Return scikit-image's cup of coffee, 128 x 128."""
    import skimage

    data = (Path(skimage.__file__).parent / "data" / "coffee.png").read_bytes()
    return fit(decode_image(data), resolution=128, crop="center")


def make(spec: Spec) -> np.ndarray:
    """Return the map of the cup."""
    result = spec.annotate(coffee(), None, generator_for("coffee", spec.condition, 0))
    assert isinstance(result, Annotation)
    return result.map


if __name__ == "__main__":
    for name, spec in GOLDENS.items():
        (FOLDER / name).write_bytes(encode_png(make(spec)))
