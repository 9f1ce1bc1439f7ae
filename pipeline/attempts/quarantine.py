"""Images that end the process that works on them, found one by one and set aside for good.

A crash inside a decoder or a network cannot be caught. When the processes of a unit keep dying, its
images are worked on one at a time in a process of their own. One that ends that process twice, by a
signal, or twice takes longer than an image may, is recorded as ``quarantine/<sha256>.json``,
create-once: from then on every attempt at the unit, anywhere, leaves it alone, and its row says
``failed:ProcessDied``.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from catalog import storage
from catalog.errors import PlaceError
from catalog.sample import canonical_json
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe

QUARANTINE = "quarantine"

BEGUN = "begun\n"
"""What the child says before each image."""

_CHILD = "pipeline.unit.examine_child"
_FROM_OUTSIDE = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_LAST_LINES = 2000  # characters of a child's complaint that are shown


def quarantined(dataset: str, sha256s: Sequence[str]) -> dict[str, str]:
    """Return those of the images that are set aside, with what was seen of them."""
    names = storage.list_names(storage.join(dataset, QUARANTINE))
    aside = {name.removesuffix(".json") for name in names}
    return {sha256: _read(dataset, sha256) for sha256 in sha256s if sha256 in aside}


def release(dataset: str, sha256s: Sequence[str]) -> None:
    """Set no longer aside those of the images that are."""
    for sha256 in quarantined(dataset, sha256s):
        storage.remove(storage.join(dataset, QUARANTINE, f"{sha256}.json"))


def examine(
    dataset: str, recipe: Recipe, execution: Execution, rows: Sequence[dict[str, Any]]
) -> None:
    """Work on each image alone, and set aside those that end the process.

    Args:
        dataset: URI of the dataset.
        recipe: of the dataset.
        execution: device and threads.
        rows: of the plan: a unit's.

    Raises:
        PlaceError: the process ends in any other way than by a signal of its own: with a traceback,
            or because it was stopped. Or each of several images takes too long. That says nothing
            of an image.
    """
    aside = quarantined(dataset, [row["sha256"] for row in rows])
    left = [row for row in rows if row["sha256"] not in aside]
    suspected: str | None = None  # a process may also have been killed by chance
    slow: list[str] = []
    passed = 0
    while left:
        begun, code, complaint = _run_child(recipe, execution, left)
        if code == 0:
            passed += len(left)
            break
        if begun == 0 or code >= 0 or -code in _FROM_OUTSIDE:
            raise PlaceError(f"a unit cannot be examined: {complaint or f'exit code {code}'}")
        passed += begun - 1
        left = left[begun - 1 :]
        killer = left[0]["sha256"]
        if killer == suspected:
            if -code == signal.SIGALRM:
                slow.append(killer)
            else:
                _set_aside(dataset, killer, f"the process died: {signal.Signals(-code).name}")
            left = left[1:]
        suspected = killer
    limit = f"{execution.image_timeout:g} s"
    if len(slow) > 1 and not passed:
        raise PlaceError(
            f"each of {len(slow)} images takes longer than {limit} here, alone: this machine is "
            "slow or overloaded; if it is not, give them longer: --image-timeout"
        )
    for sha256 in slow:
        _set_aside(dataset, sha256, f"it took longer than {limit}")


def _run_child(
    recipe: Recipe, execution: Execution, rows: Sequence[dict[str, Any]]
) -> tuple[int, int, str]:
    """Return how many images the child began, its exit code, and the end of its complaint."""
    task = {"recipe": recipe.to_dict(), "execution": execution.model_dump(), "rows": rows}
    child = subprocess.run(
        [sys.executable, "-m", _CHILD],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        check=False,
    )
    return child.stdout.count(BEGUN), child.returncode, child.stderr[-_LAST_LINES:].strip()


def _set_aside(dataset: str, sha256: str, detail: str) -> None:
    record = canonical_json({"detail": detail})
    with suppress(FileExistsError):  # another attempt at the unit found it too
        storage.create_once(storage.join(dataset, QUARANTINE, f"{sha256}.json"), record)


def _read(dataset: str, sha256: str) -> str:
    record = storage.read_bytes(storage.join(dataset, QUARANTINE, f"{sha256}.json"))
    return str(json.loads(record)["detail"])
