"""What the scores of each metric mean: of pictures that are near what was asked for, and far.

    python benchmarks/metrics.py FILE... [--resolution 256]

Each condition of each photograph is scored in the photograph itself, in it as a JPEG of quality 95,
blurred by a Gaussian of 2 px, and in the next photograph. Printed is the range over photographs;
those in which nobody is found do not count for a pose. A detector whose checkpoint is not here is
left out, and named.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

if sys.path[0] == str(Path(__file__).parent):
    sys.path.pop(0)  # there benchmarks would hide the packages of their names

import cv2
import numpy as np
from pydantic import TypeAdapter

from catalog.images import Image, decode, encode_jpeg, fit
from detectors.base import Spec
from detectors.errors import WeightsError
from detectors.graph import annotate
from pipeline.recipe.recipe import AnySpec
from training.measure.redetect import Found, Redetector

DETECTORS = ("canny", "hed", "scribble", "mlsd", "lsd", "openpose_light", "movenet")
COLUMNS = ("itself", "as JPEG of quality 95", "blurred by 2 px", "another photograph")


def read(path: Path, resolution: int) -> Image:
    return fit(decode(path.read_bytes()).pixels, resolution=resolution, crop="center")


def find(spec: Spec, redetector: Redetector, photographs: list[Image]) -> list[Found]:
    """Return the condition of each photograph, drawn as in a build."""
    found = redetector._graph.run(photographs)
    results = (
        annotate(spec, picture, findings, np.random.default_rng(at))
        for at, (picture, findings) in enumerate(zip(photographs, found, strict=True))
    )
    return [Found(map=one.map, parameters=one.parameters) for one in results]


def rows(spec: Spec, photographs: list[Image]) -> list[str]:
    redetector = Redetector(spec)
    conditions = find(spec, redetector, photographs)
    shows = [at for at, one in enumerate(conditions) if one.parameters.get("people", [None])]
    changes: tuple[Callable[[int], Image], ...] = (
        lambda at: photographs[at],
        lambda at: decode(encode_jpeg(photographs[at], 95)).pixels,
        lambda at: cv2.GaussianBlur(photographs[at], (0, 0), 2),
        lambda at: photographs[(at + 1) % len(photographs)],
    )
    wanted = [conditions[at] for at in shows]
    scores = [redetector.scores([change(at) for at in shows], wanted) for change in changes]
    name = f"{spec.condition} ({len(shows)})"
    return [name, *(f"{min(one):.2f} to {max(one):.2f}" for one in scores)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photographs", nargs="+", type=Path)
    parser.add_argument("--resolution", type=int, default=256)
    options = parser.parse_args()
    photographs = [read(path, options.resolution) for path in options.photographs]
    print("| condition (photographs) | " + " | ".join(COLUMNS) + " |")
    print("|---" * (1 + len(COLUMNS)) + "|")
    for name in DETECTORS:
        spec = TypeAdapter(AnySpec).validate_python({"detector": name})
        try:
            print("| " + " | ".join(rows(spec, photographs)) + " |", flush=True)
        except WeightsError as error:
            print(f"{name}: {str(error).splitlines()[0]}", file=sys.stderr)


if __name__ == "__main__":
    main()
