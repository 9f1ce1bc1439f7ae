"""Builds that are killed again and again, at seeded moments; prints what came of them as JSON.

    python tests/faults/kill_rounds.py IMAGES SCRATCH ROUNDS SEED

Each attempt is a fork of this process, so that a round costs a build and no imports.
"""

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from catalog.dataset.dataset import Dataset
from catalog.dataset.verify import differences, verify
from pipeline.build.build import build
from pipeline.build.local import run_local
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe, load_recipe
from pipeline.scan.source import Inputs

# Marks of dead attempts are not looked into: no image is to blame, and each death is the test's.
EXECUTION = Execution(threads=2, deaths_suspicious=10_000, deaths_allowed=10_000)


class Silent:
    """Shows nothing."""

    def scanning(self) -> Any:
        return lambda done, total: None

    def planned(self, units: int, pending: int, images: int) -> None: ...

    def unit_done(self, report: object) -> None: ...

    def unit_failed(self, failure: object) -> None: ...


def run(recipe: Recipe, images: str, out: Path) -> None:
    inputs = Inputs(images=[images])
    build(recipe, str(out), inputs, EXECUTION, executor=run_local, observer=Silent())


def forked(recipe: Recipe, images: str, out: Path, seconds: float | None) -> bool:
    """Build in a child and kill it after a time; return whether it had ended by itself."""
    child = os.fork()
    if not child:
        try:
            run(recipe, images, out)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a build failed by itself")
    return os.WIFEXITED(status)


def main() -> None:
    images, scratch, rounds, seed = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:5])
    draw = random.Random(seed)
    recipe = load_recipe(
        "canny",
        [
            "image.resolution=64",
            "samples_per_unit=2",
            "rules.min_sharpness=0",
            "captions.captioner=sidecar",
        ],
    )
    run(recipe, images, scratch / "first")  # imports what each fork would
    start = time.perf_counter()
    forked(recipe, images, scratch / "undisturbed", None)
    whole = time.perf_counter() - start
    seen: Counter[str] = Counter()
    while seen["kills"] < rounds:
        out = scratch / f"built-{seen['datasets']}"
        while not forked(recipe, images, out, draw.uniform(0, whole)):
            seen["kills"] += 1
        keys = Dataset.open(str(out)).view().table["key"].to_pylist()
        expected = Dataset.open(str(scratch / "undisturbed")).view().table["key"].to_pylist()
        seen["datasets"] += 1
        seen["lost"] += len(set(expected) - set(keys))
        seen["duplicated"] += len(keys) - len(set(keys))
        seen["samples"] += len(keys)
        seen["differences"] += len(differences(str(out), str(scratch / "undisturbed")))
        seen["faults"] += len(verify(Dataset.open(str(out))))
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
