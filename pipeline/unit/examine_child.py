"""``python -m pipeline.unit.examine_child``: annotates images one by one for `quarantine.examine`.

Reads recipe, execution and rows of a plan as JSON from stdin; says on stdout when it begins an
image. Nothing is kept: what counts is whether the process lives.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

from pipeline.attempts.environment import fix_threads
from pipeline.attempts.quarantine import BEGUN
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe
from pipeline.unit.clock import StageClock
from pipeline.unit.stages import Annotator
from pipeline.unit.watch import alarmed


def work_through(task: dict[str, Any]) -> Iterator[None]:
    """Annotate image after image alone; yields before each."""
    recipe = Recipe.model_validate(task["recipe"])
    execution = Execution.model_validate(task["execution"])
    fix_threads(recipe, execution, task["rows"])
    annotator = Annotator(recipe, threads=1, device=execution.device)
    clock = StageClock(alarmed(execution.image_timeout))
    for row in task["rows"]:
        yield
        for _ in annotator.annotate([row], clock=clock):
            pass


if __name__ == "__main__":
    for _ in work_through(json.load(sys.stdin)):
        print(BEGUN, end="", flush=True)
