"""Memory of the driver and of Ray's object store over many small units; time of a unit's overhead.

    python benchmarks/many_units.py [--units 2000] [--local]

A unit holds one picture of 64 x 64, so what is measured is all that a unit costs beside its images.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

if sys.path[0] == str(Path(__file__).parent):
    sys.path.pop(0)  # there benchmarks would hide the packages of their names

import numpy as np
from PIL import Image

from pipeline.attempts.outcome import UnitFailure, UnitReport
from pipeline.build.build import build
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import load_recipe
from pipeline.scan.source import Inputs

MIB = 1 << 20
TINY = ["image.resolution=64", "samples_per_unit=1", "rules.min_sharpness=0"]


def resident() -> float:
    """Return the memory of this process that is in RAM; MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def nothing() -> float:
    return 0.0


def in_object_store() -> float:
    """Return what Ray's object stores hold; MiB."""
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    state = get_state_from_address(ray.get_runtime_context().gcs_address)
    return float(get_memory_info_reply(state).store_stats.object_store_bytes_used / MIB)


class Watch:
    """Prints the figures at every tenth of the way."""

    def __init__(self, stored: Callable[[], float]) -> None:
        self._stored = stored
        self._done = 0

    def scanning(self) -> Callable[[int, int], None]:
        return lambda done, total: None

    def planned(self, units: int, pending: int, images: int) -> None:
        self._every = max(1, pending // 10)
        self._start = time.perf_counter()

    def unit_done(self, report: UnitReport) -> None:
        self._done += 1
        if self._done % self._every == 0:
            rate = self._done / (time.perf_counter() - self._start)
            print(
                f"{self._done:>7,} units  {rate:6.1f} units/s  driver {resident():6.0f} MiB  "
                f"object store {self._stored():6.2f} MiB",
                flush=True,
            )

    def unit_failed(self, failure: UnitFailure) -> None:
        print(failure)


def write_pictures(folder: Path, count: int) -> None:
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(count):
        noise = draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:06d}.png", compress_level=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=2_000)
    parser.add_argument("--local", action="store_true")
    options = parser.parse_args()
    stored = nothing
    if options.local:
        from pipeline.build.local import run_local as executor
    else:
        import ray

        from pipeline.build.on_ray import run_on_ray as executor

        ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
        stored = in_object_store
    with tempfile.TemporaryDirectory() as scratch:
        write_pictures(Path(scratch) / "in", options.units)
        inputs = Inputs(images=[f"{scratch}/in"])
        build(
            load_recipe("canny", [*TINY, "captions.captioner=sidecar"]),
            f"{scratch}/d",
            inputs,
            Execution(),
            executor=executor,
            observer=Watch(stored),
        )


if __name__ == "__main__":
    main()
