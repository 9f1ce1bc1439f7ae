"""Images that failed, planned and tried again: what failed them may be gone, and the images not."""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from catalog import lookup, tables
from catalog.dataset import busy
from catalog.dataset.dataset import Dataset
from catalog.errors import DatasetError
from pipeline.attempts import quarantine
from pipeline.build.build import BuildResult, Executor, Observer, finish
from pipeline.plan.generation import append, planned_rows, same_recipe_of
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe

_FAILED = "failed:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """What a call came to.

    Attributes:
        planned: images that were tried again, by what they had failed with; empty where none had.
        left: images that are failed now, by status.
        result: of the build; None where nothing was left to do.
    """

    planned: dict[str, int]
    left: dict[str, int]
    result: BuildResult | None


def retry_failed(
    uri: str,
    execution: Execution,
    *,
    executor: Executor,
    observer: Observer,
    captioner_elsewhere: bool = False,
) -> Retried:
    """Try the images of a dataset that failed again, as units of a new generation.

    A call, or a build, that was stopped on the way goes on: nothing is planned until all is
    committed. Images that had been set aside for ending their process are looked at again.

    Args:
        uri: of a finished dataset.
        execution: resources.
        executor: as for `pipeline.build.build.build`.
        observer: is told what happens.
        captioner_elsewhere: other machines do the work; this one need not have the captioner.

    Raises:
        UsageError: images need a captioner that is not here.
        DatasetError: the dataset is not finished, or is of another version.
        BuildError: units fail, for instance as images still fail alike; nothing else is lost.
    """
    opened = Dataset.open(uri)
    recipe = same_recipe_of(opened)
    pending = opened.pending()
    if pending and len(opened.plans.names) == 1:
        raise DatasetError(
            f"{uri} is not finished, {len(pending)} of {len(opened.unit_ids)} units are to be "
            "done: run its build command again, and then retry what failed"
        )
    if not pending:
        if busy.stands(uri, busy.COMPACT):
            raise DatasetError(f"a compaction of {uri} runs or did not end: compact it first")
        opened.finalize()
        if not _plan_failed(opened, recipe):
            return Retried(planned={}, left=_failed(opened.status().rejects), result=None)
        opened = Dataset.open(uri)
        pending = opened.pending()
    again = opened.plans.tried_again({opened.unit_ids[index] for index in pending})
    planned = tables.count_values(again["status"])
    result = finish(
        opened,
        recipe,
        execution,
        executor=executor,
        observer=observer,
        captioner_elsewhere=captioner_elsewhere,
    )
    return Retried(planned=planned, left=_failed(result.status.rejects), result=result)


def _plan_failed(dataset: Dataset, recipe: Recipe) -> bool:
    """Plan what failed in the units and was not taken down; say whether there is any."""
    lost = dataset.rejects().select(["sha256", "status"])
    lost = lost.filter(pc.starts_with(lost["status"], _FAILED))
    rows = planned_rows(dataset, lost["sha256"])
    if not rows.num_rows:  # what the scan could not read is in no plan
        return False
    statuses = lost["status"].take(lookup.index_in(rows["sha256"], lost["sha256"]))
    at = rows.schema.get_field_index("status")
    quarantine.release(dataset.uri, rows["sha256"].to_pylist())
    append(dataset, recipe, rows.set_column(at, pa.field("status", pa.string()), statuses))
    return True


def _failed(rejects: Mapping[str, int]) -> dict[str, int]:
    return {status: count for status, count in rejects.items() if status.startswith(_FAILED)}
