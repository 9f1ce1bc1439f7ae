"""The detector that made a dataset's condition, out of the recipe that the dataset keeps."""

from pydantic import TypeAdapter, ValidationError

from catalog.dataset.dataset import Dataset
from detectors.base import Spec
from pipeline.errors import UsageError
from pipeline.recipe.recipe import AnySpec


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
