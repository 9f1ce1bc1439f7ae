"""Whom a unit's dead attempts accuse: which of its images are tried alone, and when."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.attempts import marks, quarantine
from pipeline.errors import BuildError
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe

_OTHERS = 2  # images that are tried beside one that takes long: is it slow, or the place?


def set_aside(dataset: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return those of a unit's images that are set aside, with what was seen of them."""
    return quarantine.quarantined(dataset, [row["sha256"] for row in rows])


def tried(
    dataset: str,
    unit: str,
    recipe: Recipe,
    execution: Execution,
    rows: Sequence[dict[str, Any]],
    run: str,
) -> dict[str, str]:
    """Return the unit's images not to be touched; looks for them where attempts keep dying.

    Args:
        dataset: its URI.
        unit: its id.
        recipe: of the dataset.
        execution: how many deaths, and how long.
        rows: of the plan: the unit's.
        run: name of the build that this attempt is one of.

    Raises:
        BuildError: the attempts die although no single image is to blame.
        PlaceError: the images cannot be tried here.
    """
    died = marks.count(dataset, unit, run)
    suspects = marks.suspects(dataset, unit)
    if died >= execution.deaths_allowed:
        marks.forget(dataset, unit)
        raise BuildError(
            f"its process died {died} times, though each of its images can be worked on "
            "alone: it may need more memory than a worker has; try fewer threads or actors"
        )
    if died >= execution.deaths_suspicious:
        quarantine.examine(dataset, recipe, execution, rows)
    elif suspects:
        others = [row for row in rows if row["sha256"] not in suspects]
        seen = [row for row in rows if row["sha256"] in suspects]
        quarantine.examine(dataset, recipe, execution, seen + others[:_OTHERS])
    if suspects:
        marks.acquit(dataset, unit)
    return set_aside(dataset, rows)
