"""What a dataset's own recipe says: all, the detector of a condition, the base to train on."""

from typing import get_args

from pydantic import TypeAdapter, ValidationError

from catalog.dataset.dataset import Dataset
from detectors.base import Spec
from pipeline.errors import UsageError
from pipeline.recipe.recipe import AnySpec, Format, Recipe


def recipe_of(dataset: Dataset) -> Recipe:
    """Return the recipe of `dataset`; raises UsageError for one that this version does not know."""
    try:
        return in_format(Recipe.model_validate(dataset.recipe), dataset.format)
    except ValidationError as error:
        (first, *_) = error.errors()
        where = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"the recipe of {dataset.uri} is of another version, and does not validate: {where}: "
            f"{first['msg']}"
        ) from error


def in_format(recipe: Recipe, begun: int) -> Recipe:
    """Return the recipe in the format that a dataset was begun in, where this version writes it."""
    known = begun in get_args(Format)
    return recipe.model_copy(update={"format": begun}) if known else recipe


def base_of_recipe(dataset: Dataset) -> str:
    """Return the base model that the recipe of `dataset` names; raises UsageError for none."""
    base = (dataset.recipe.get("training") or {}).get("base")
    if base is None:
        raise UsageError(f"the recipe of {dataset.uri} names no base model: give one with --base")
    return str(base)


def condition_spec(dataset: Dataset, condition: str) -> Spec:
    """Return the detector that made a condition of `dataset`.

    Raises:
        UsageError: the recipe names none, or one that this version does not know.
    """
    made = {entry["condition"]: entry for entry in dataset.recipe.get("detectors", ())}
    if condition not in made:
        known = ", ".join(made) or "none"
        raise UsageError(f"{dataset.uri} has no condition {condition!r}; its recipe has: {known}")
    try:
        spec: Spec = TypeAdapter(AnySpec).validate_python(made[condition])
    except ValidationError as error:
        raise UsageError(
            f"the recipe of {dataset.uri} is of another version, its detector of {condition!r} "
            f"does not validate: {error.errors()[0]['msg']}"
        ) from error
    return spec
