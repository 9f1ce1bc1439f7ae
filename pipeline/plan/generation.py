"""A later generation of a dataset's plan: images that follow its units, cut as they were."""

import pyarrow as pa
import pyarrow.compute as pc

from catalog import tables
from catalog.dataset.dataset import Dataset
from catalog.dataset.plans import never_planned, plan_name
from catalog.errors import DatasetError
from catalog.lookup import Hashes
from catalog.source.ranking import rank
from pipeline.plan.judge import cut_rows
from pipeline.recipe.made_by import recipe_of
from pipeline.recipe.recipe import Recipe


def same_recipe_of(dataset: Dataset) -> Recipe:
    """Return the recipe of a dataset, to go on with it.

    Raises:
        UsageError: this version does not know it.
        DatasetError: by this version's code it is another one.
    """
    recipe = recipe_of(dataset)
    if recipe.fingerprint != dataset.fingerprint:
        raise DatasetError(
            f"{dataset.uri} was built as {dataset.fingerprint[:12]}, and this version makes "
            f"{recipe.fingerprint[:12]} of its recipe: go on with the version that built it"
        )
    return recipe


def append(dataset: Dataset, recipe: Recipe, rows: pa.Table, *, source: str | None = None) -> None:
    """Plan images as the next generation of a dataset; what reads it opens it anew.

    Args:
        dataset: of which every unit is committed, so that no other generation is on its way.
        recipe: of the dataset.
        rows: of the schema `catalog.tables.PLAN` without ``unit``, in any order. The status of an
            image that failed before is what it failed with; that of another is ok.
        source: name, below the dataset, of the source as it is now; None where it is as it was.

    Raises:
        DatasetError: another generation was planned meanwhile.
    """
    generation, first = len(dataset.plans.names), len(dataset.unit_ids)
    ranked = rank(rows, by=recipe.ranking)
    plan, unit_ids = cut_rows(ranked, recipe, generation=generation, first=first)
    size = recipe.samples_per_unit
    named = {} if source is None else {"source": source}
    uri = dataset.path(plan_name(generation))
    try:
        tables.create_parquet(uri, plan, {"unit_ids": unit_ids, **named}, row_group_size=size)
    except FileExistsError:
        raise DatasetError(
            f"{dataset.uri}: other images were planned meanwhile; run the same command again"
        ) from None


def planned_rows(dataset: Dataset, sha256s: pa.ChunkedArray) -> pa.Table:
    """Return what the source, as it is now, tells of these images where it has them to annotate."""
    names = [name for name in tables.PLAN.names if name != "unit"]
    wanted = Hashes(sha256s)
    return tables.read_where(
        dataset.source,
        names,
        lambda rows: pc.and_(wanted.has(rows["sha256"]), pc.invert(never_planned(rows))),
    )
