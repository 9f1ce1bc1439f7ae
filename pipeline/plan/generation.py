"""A later generation of a dataset's plan: images that follow its units, cut as they were."""

import pyarrow as pa

from catalog import storage, tables
from catalog.dataset.dataset import Dataset
from catalog.dataset.plans import plan_name
from catalog.errors import DatasetError
from catalog.source.ranking import rank
from pipeline.plan.judge import cut_rows
from pipeline.recipe.recipe import Recipe


def recipe_of(dataset: Dataset) -> Recipe:
    """Return the recipe of a dataset, to go on with it.

    Raises:
        DatasetError: by this version's code it is another one.
    """
    recipe = Recipe.model_validate(dataset.recipe)
    if recipe.fingerprint != dataset.fingerprint:
        raise DatasetError(
            f"{dataset.uri} was built as {dataset.fingerprint[:12]}, and this version makes "
            f"{recipe.fingerprint[:12]} of its recipe: go on with the version that built it"
        )
    return recipe


def append(dataset: Dataset, recipe: Recipe, rows: pa.Table) -> None:
    """Plan images as the next generation of a dataset; what reads it opens it anew.

    Args:
        dataset: of which every unit is committed, so that no other generation is on its way.
        recipe: of the dataset.
        rows: of the schema `catalog.tables.PLAN`, in any order; none of them is a sample. The
            status of an image that failed before is what it failed with; that of a new one is ok.

    Raises:
        DatasetError: another generation was planned meanwhile.
    """
    generation, first = len(dataset.plans.names), len(dataset.unit_ids)
    ranked = rank(rows.drop_columns("unit"), by=recipe.ranking)
    plan, unit_ids = cut_rows(ranked, recipe, generation=generation, first=first)
    size = recipe.samples_per_unit
    data = tables.to_parquet(plan, {"unit_ids": unit_ids}, row_group_size=size)
    uri = dataset.path(plan_name(generation))
    try:
        storage.create_once(uri, data)
    except FileExistsError:
        if storage.read_bytes(uri) != data:
            raise DatasetError(
                f"{dataset.uri}: other images were planned meanwhile; run the same command again"
            ) from None
