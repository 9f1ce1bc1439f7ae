"""A finished dataset follows its source: what is new or changed is built, what is gone is left out.

One generation of units a call, beside those that are committed; none of these is touched.
"""

from dataclasses import dataclass, replace

from catalog import storage
from catalog.dataset import busy, tombstones
from catalog.dataset.dataset import Dataset
from catalog.errors import DatasetError
from pipeline.build.build import BuildResult, Executor, Observer, finish
from pipeline.plan.captioner import require_for_source
from pipeline.plan.freeze import claim
from pipeline.plan.growth import Growth, grow
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe
from pipeline.scan.chunks import Executor as ScanExecutor
from pipeline.scan.chunks import forget, scan_here
from pipeline.scan.scan import SCAN
from pipeline.scan.source import Inputs, load_source, with_earlier


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """What a call came to.

    Attributes:
        growth: how the source differs from the one before; None where it does not.
        result: of the build.
    """

    growth: Growth | None
    result: BuildResult


def append_changes(
    uri: str,
    recipe: Recipe,
    inputs: Inputs,
    execution: Execution,
    *,
    executor: Executor,
    observer: Observer,
    scanner: ScanExecutor = scan_here,
    captioner_elsewhere: bool = False,
    whole: bool = False,
) -> Appended:
    """Bring a dataset to what its source is now; a call that was stopped goes on.

    Units that an earlier call planned are finished first. Maps of images of which only the caption
    changed are taken from the dataset itself.

    Args:
        uri: of a dataset that is planned.
        recipe: of the dataset.
        inputs: further images, beside those that the dataset is of; or a table or a dataset that
            tells of all, so that what is not in there is gone.
        execution: resources.
        executor: as for `pipeline.build.build.build`.
        observer: is told what happens.
        scanner: as for `pipeline.build.build.build`.
        captioner_elsewhere: other machines do the work; this one need not have the captioner.
        whole: the images of `inputs` are all there are, too: what is not among them is gone.

    Raises:
        UsageError: images need a captioner that is not here, or nobody knows the images so far.
        DatasetError: it belongs to another recipe, a compaction did not end, no image is left, or
            another generation was planned meanwhile.
        BuildError: units failed; the same call goes on.
    """

    def complete() -> BuildResult:
        return finish(
            Dataset.open(uri),
            recipe,
            execution,
            executor=executor,
            observer=observer,
            captioner_elsewhere=captioner_elsewhere,
        )

    claim(uri, recipe)
    before = complete()
    if busy.stands(uri, busy.COMPACT):
        raise DatasetError(f"a compaction of {uri} runs or did not end: compact it first")
    if not whole:
        inputs = with_earlier(Dataset.open(uri), inputs)
    pieces = storage.join(uri, SCAN)
    table, metadata = load_source(
        recipe, inputs, progress=observer.scanning(), folder=pieces, scanner=scanner, dataset=uri
    )
    if not captioner_elsewhere:
        require_for_source(recipe, table)
    table = tombstones.mark_removed(table, tombstones.removed_keys(uri))
    growth = grow(Dataset.open(uri), recipe, table, metadata)
    forget(pieces)
    if growth is None:
        return Appended(growth=None, result=before)
    if growth.changed and execution.reuse is None:
        execution = execution.model_copy(update={"reuse": uri})
    result = complete()
    ran = before.units_run + result.units_run
    return Appended(growth=growth, result=replace(result, units_run=ran, changed=True))
