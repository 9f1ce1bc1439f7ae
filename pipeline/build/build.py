"""A build: scan, plan, annotate, commit, finalize; each step is skipped where it is done."""

import shutil
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from typing import Protocol, TypeAlias

import pyarrow as pa

from catalog import storage
from catalog.dataset import dataset as layout
from catalog.dataset import tombstones
from catalog.dataset.busy import ATTEMPTS
from catalog.dataset.dataset import Dataset, Status
from catalog.dataset.orphans import sweep_orphans
from catalog.errors import DatasetError
from pipeline.attempts import marks
from pipeline.attempts.outcome import UnitFailure, UnitReport
from pipeline.build.run_log import RunLog
from pipeline.errors import BuildError, UsageError
from pipeline.plan.captioner import require_for_pending, require_for_source
from pipeline.plan.freeze import claim, freeze
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe
from pipeline.scan.chunks import Executor as ScanExecutor
from pipeline.scan.chunks import forget, scan_here
from pipeline.scan.kept import forget_found
from pipeline.scan.scan import SCAN, Progress
from pipeline.scan.source import Inputs, check_same_inputs, home_of, load_source
from pipeline.unit.earlier_maps import EarlierMaps

Executor: TypeAlias = Callable[
    [str, Recipe, Execution, Sequence[int], str], Generator[UnitReport | UnitFailure]
]
"""Runs the pending units of a dataset for a build; yields what becomes of each as it ends."""

Check: TypeAlias = Callable[[Recipe, pa.Table], None]
"""Refuses a recipe for a source table, or says nothing."""

RESUME = "Committed units stay; the same command resumes."

_FAILURES_OF_FEW = 3  # failed units that a build of few units survives, to try them again


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """What a build came to.

    Attributes:
        units_run: units that this call annotated; 0 where nothing was left to do.
        changed: whether this call wrote anything.
        status: the dataset's counts afterwards.
    """

    units_run: int
    changed: bool
    status: Status

    @property
    def failed_share(self) -> float:
        """Share of all images that failed (not: were rejected by a rule), 0..1."""
        failures = sum(n for kind, n in self.status.rejects.items() if kind.startswith("failed:"))
        return failures / self.status.images if self.status.images else 0.0


class Observer(Protocol):
    """Watches a build: a live view on a terminal, lines elsewhere."""

    def scanning(self) -> Progress:
        """Return what is told of the scan's progress."""
        ...

    def planned(self, units: int, pending: int, images: int) -> None:
        """The plan stands; `pending` of its units are to be run."""
        ...

    def unit_done(self, report: UnitReport) -> None:
        """A unit is committed."""
        ...

    def unit_failed(self, failure: UnitFailure) -> None:
        """A unit committed nothing, and may be tried again."""
        ...


def build(
    recipe: Recipe,
    dataset: str,
    inputs: Inputs,
    execution: Execution,
    *,
    executor: Executor,
    observer: Observer,
    scanner: ScanExecutor = scan_here,
    captioner_elsewhere: bool = False,
) -> BuildResult:
    """Build a dataset, or go on with it; running the same call again is the resume.

    Args:
        recipe: what the dataset is made of.
        dataset: URI of its folder.
        inputs: where the images come from; may be left empty once the plan is frozen.
        execution: resources; changes no byte.
        executor: `pipeline.build.local.run_local` or `pipeline.build.on_ray.run_on_ray`.
        observer: is told what happens.
        scanner: `pipeline.scan.chunks.scan_here` or `pipeline.scan.on_ray.scan_on_ray`.
        captioner_elsewhere: other machines do the work; this one need not have the captioner.

    Raises:
        UsageError: nothing to build from, maps to reuse that are others, or images that need a
            captioner that is not here.
        DatasetError: the folder belongs to another recipe or to other images.
        BuildError: units failed, more than a few or again and again; what is committed stays.
    """
    if execution.reuse is not None:
        EarlierMaps(execution.reuse, recipe)  # refuses here, not in each worker
    check = None if captioner_elsewhere else require_for_source
    opened = prepare(recipe, dataset, inputs, observer, scanner, check=check, reuse=execution.reuse)
    return finish(
        opened,
        recipe,
        execution,
        executor=executor,
        observer=observer,
        captioner_elsewhere=captioner_elsewhere,
    )


def finish(
    opened: Dataset,
    recipe: Recipe,
    execution: Execution,
    *,
    executor: Executor,
    observer: Observer,
    captioner_elsewhere: bool = False,
) -> BuildResult:
    """Run what is planned of a dataset and has no commit, then fold; raises as `build` does."""
    pending = opened.pending()
    if not captioner_elsewhere:
        require_for_pending(recipe, opened, pending)
    observer.planned(len(opened.unit_ids), len(pending), opened.plans.images)
    ran = _run_units(opened, recipe, execution, executor, observer) if pending else 0
    changed = opened.finalize(again=bool(pending))
    sweep_orphans(opened)
    _sweep(opened)
    return BuildResult(units_run=ran, changed=changed or bool(pending), status=opened.status())


def is_planned(dataset: str) -> bool:
    """Say whether a plan is frozen in the dataset's folder."""
    return storage.exists(storage.join(dataset, layout.PLAN))


def prepare(
    recipe: Recipe,
    dataset: str,
    inputs: Inputs,
    observer: Observer,
    scanner: ScanExecutor = scan_here,
    *,
    check: Check | None = None,
    reuse: str | None = None,
) -> Dataset:
    """Freeze recipe, source and plan in the dataset's folder where they are not frozen yet.

    What was taken down of the datasets that it is made from, by `inputs` or for their maps by
    `reuse`, is taken down here as well.

    Args:
        recipe: what the dataset is made of.
        dataset: URI of its folder.
        inputs: where the images come from.
        observer: is told what happens.
        scanner: how the images are scanned.
        check: is asked before anything is frozen, and may refuse.
        reuse: URI of a dataset whose maps are taken.
    """
    planned = is_planned(dataset)
    given = [inputs.images or None, inputs.source, inputs.dataset]
    if sum(one is not None for one in given) > 1:
        raise UsageError("--images, --source and --from are three ways to say the same: give one")
    if not planned and not any(given):
        raise UsageError(
            f"{dataset} is not planned yet: say where the images are with --images URI"
        )
    if not planned:
        planned = not _scan_and_freeze(recipe, dataset, inputs, observer, scanner, check, reuse)
    if planned:
        claim(dataset, recipe)
        check_same_inputs(dataset, inputs)
        _take_over(dataset, inputs, reuse)
    return Dataset.open(dataset)


def _take_over(dataset: str, inputs: Inputs, reuse: str | None) -> None:
    """Take over what was taken down of the datasets that this one is made from."""
    for other in filter(None, (inputs.dataset, home_of(inputs.source), reuse)):
        tombstones.take_over(dataset, other)


def _scan_and_freeze(
    recipe: Recipe,
    dataset: str,
    inputs: Inputs,
    observer: Observer,
    scanner: ScanExecutor,
    check: Check | None,
    reuse: str | None,
) -> bool:
    """Scan and freeze; return False where an equal build beside this one has frozen meanwhile.

    What was scanned stays for the next try where a kill or the storage ends this one.
    """
    pieces = storage.join(dataset, SCAN)
    if storage.exists(storage.join(dataset, layout.RECIPE)):
        claim(dataset, recipe)  # refuses now, not hours later
    try:
        source, metadata = load_source(
            recipe,
            inputs,
            progress=observer.scanning(),
            folder=pieces,
            scanner=scanner,
            dataset=dataset,
        )
    except DatasetError:  # it tidied up what we wanted to read
        if not is_planned(dataset):
            raise
        forget(pieces)
        return False
    if check is not None:
        check(recipe, source)  # what was scanned stays: the next try is with the same images
    try:
        claim(dataset, recipe)
        _take_over(dataset, inputs, reuse)
        source = tombstones.mark_removed(source, tombstones.removed_keys(dataset))
        freeze(dataset, recipe, source, metadata)
    except (UsageError, DatasetError):  # another try would be with other images
        forget(pieces)
        forget_found(dataset)
        raise
    forget(pieces)
    return True


def _run_units(
    opened: Dataset, recipe: Recipe, execution: Execution, executor: Executor, observer: Observer
) -> int:
    """Run what is pending, failed units several times; return how many calls committed a unit."""
    run = uuid.uuid4().hex[:8]
    committed, tries = 0, 1 + execution.retries
    failures: list[UnitFailure] = []
    with RunLog(opened.uri) as log, marks.running(opened.uri, run):
        while tries:
            pending = opened.pending()
            log.write("start", pending=[opened.unit_ids[index] for index in pending])
            results = executor(opened.uri, recipe, execution, pending, run)
            before, failures = committed, []
            for result in _watch(results, len(pending), execution, log, observer):
                if isinstance(result, UnitReport):
                    committed += 1
                else:
                    failures.append(result)
            if not failures:
                log.write("done")
                return committed
            # What a sick machine spoils while others work costs no try: they get to it.
            spoilt = all(failure.of_the_place for failure in failures)
            tries -= not (spoilt and committed > before)
        raise _stopped(failures)


def _watch(
    results: Generator[UnitReport | UnitFailure],
    units: int,
    execution: Execution,
    log: RunLog,
    observer: Observer,
) -> Iterator[UnitReport | UnitFailure]:
    """Tell log and observer of each result and hand it on; stop where too many fail.

    Failures of a place are too many only where most machines met one since a unit was committed.

    Raises:
        BuildError: a failure that all units would meet, or more of them than are allowed.
    """
    failures: list[UnitFailure] = []
    misplaced: list[UnitFailure] = []  # since the last unit that was committed
    allowed = max(_FAILURES_OF_FEW, execution.max_failed_units * units)
    with closing(results):
        for result in results:
            if isinstance(result, UnitReport):
                log.write("unit", **asdict(result))
                observer.unit_done(result)
                misplaced.clear()
                yield result
                continue
            log.write("failure", **asdict(result))
            observer.unit_failed(result)
            if result.fatal:
                raise _stopped([result])
            same = misplaced if result.of_the_place else failures
            same.append(result)
            if len(same) > allowed and (same is failures or _everywhere(misplaced)):
                raise _stopped(same)
            yield result


def _everywhere(failures: Sequence[UnitFailure]) -> bool:
    """Say whether failures are those of most machines, so that no other could do the units."""
    return 2 * len({failure.host for failure in failures}) > failures[-1].machines


def _stopped(failures: Sequence[UnitFailure]) -> BuildError:
    first = failures[0]
    more = f" ({len(failures)} units failed)" if len(failures) > 1 else ""
    return BuildError(f"unit {first.index}: {first.error}: {first.detail}{more}. {RESUME}")


def _sweep(dataset: Dataset) -> None:
    """Remove what killed attempts left: every unit is committed, no attempt is of use now."""
    units = set(dataset.unit_ids)

    def of_attempts(folder: str) -> list[str]:  # others are those of whoever compacts it now
        names = storage.list_names(dataset.path(folder))
        ours = [name for name in names if name.lstrip(".").partition(".")[0] in units]
        return ours + [name for name in names if name.startswith(f"{marks.RUN}.")]

    for name in of_attempts(ATTEMPTS):
        storage.remove(dataset.path(ATTEMPTS, name))
    root = storage.local_path(dataset.uri)
    if root is None:
        return
    for name in of_attempts("tmp"):
        shutil.rmtree(root / "tmp" / name, ignore_errors=True)
    for folder in ("tmp", ATTEMPTS):
        with suppress(OSError):  # it is not there, or holds what is another's
            (root / folder).rmdir()
