"""A build: scan, plan, annotate, commit, finalize; each step is skipped where it is done."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import pyarrow as pa

from catalog import dataset as layout
from catalog import storage, tables
from catalog.dataset import Dataset, Status
from catalog.labels import Labels
from pipeline import plan
from pipeline.errors import UsageError
from pipeline.execution import Execution
from pipeline.recipe import Recipe
from pipeline.reuse import EarlierMaps
from pipeline.run_log import RunLog
from pipeline.scan import Progress, describe_inputs, scan
from pipeline.unit import UnitReport, UnitWorker

Executor = Callable[[str, Recipe, Execution, Sequence[int]], Iterator[UnitReport]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Where a build's images come from: sources to scan, or a table that `scan` wrote.

    Attributes:
        images: URIs of folders, tars, parquet files and images.
        source: URI of a source.parquet.
        include: glob patterns; see `pipeline.scan.scan`.
        exclude: glob patterns.
        labels: URI of a folder of ground truth whose tree mirrors the images'.
    """

    images: Sequence[str] = ()
    source: str | None = None
    include: Iterable[str] = ()
    exclude: Iterable[str] = ()
    labels: str | None = None


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


def build(
    recipe: Recipe,
    dataset: str,
    inputs: Inputs,
    execution: Execution,
    *,
    executor: Executor,
    observer: Observer,
) -> BuildResult:
    """Build a dataset, or go on with it; running the same call again is the resume.

    Args:
        recipe: what the dataset is made of.
        dataset: URI of its folder.
        inputs: where the images come from; may be left empty once the plan is frozen.
        execution: resources; changes no byte.
        executor: `run_local`, or `pipeline.ray_executor.run_on_ray`.
        observer: is told what happens.

    Raises:
        UsageError: nothing to build from, or maps to reuse that are others.
        DatasetError: the folder belongs to another recipe or to other images.
        DeterminismError: two equal attempts at a unit differ.
    """
    if execution.reuse is not None:
        EarlierMaps(execution.reuse, recipe)  # refuses here, not in each worker
    opened = prepare(recipe, dataset, inputs, observer)
    pending = opened.pending()
    with tables.open_parquet(opened.path(layout.PLAN)) as file:
        images = file.metadata.num_rows
    observer.planned(len(opened.unit_ids), len(pending), images)
    if pending:
        _run_units(opened, recipe, execution, pending, executor, observer)
    changed = opened.finalize()
    _sweep(dataset)
    return BuildResult(
        units_run=len(pending), changed=changed or bool(pending), status=opened.status()
    )


def prepare(recipe: Recipe, dataset: str, inputs: Inputs, observer: Observer) -> Dataset:
    """Freeze recipe, source and plan in the dataset's folder where they are not frozen yet."""
    planned = storage.exists(storage.join(dataset, layout.PLAN))
    if not planned and not inputs.images and inputs.source is None:
        raise UsageError(
            f"{dataset} is not planned yet: say where the images are with --images URI"
        )
    if planned:
        plan.claim(dataset, recipe)
        _same_inputs(dataset, inputs)
    else:
        source, metadata = load_source(recipe, inputs, observer)
        plan.claim(dataset, recipe)
        plan.freeze(dataset, recipe, source, metadata)
    return Dataset.open(dataset)


def load_source(
    recipe: Recipe, inputs: Inputs, observer: Observer
) -> tuple[pa.Table, dict[str, object]]:
    """Scan the sources, or read the table that an earlier scan wrote."""
    if inputs.source is not None:
        table = tables.read_table(inputs.source)
        if table.schema.names != tables.SOURCE.names:
            raise UsageError(
                f"{inputs.source} is no source table; make one with: scan --images URI"
            )
        metadata = tables.read_metadata(inputs.source)
        return table.cast(tables.SOURCE), metadata  # a map's inner names differ once it is read
    return scan(
        inputs.images,
        include=inputs.include,
        exclude=inputs.exclude,
        labels=Labels(suffix=recipe.labels.suffix, root=inputs.labels) if recipe.labels else None,
        perceptual=recipe.rules.near_duplicates is not None,
        progress=observer.scanning(),
    )


def run_local(
    dataset: str, recipe: Recipe, execution: Execution, pending: Sequence[int]
) -> Iterator[UnitReport]:
    """Run units one after the other in this process; decoding and encoding are threaded."""
    worker = UnitWorker(dataset, recipe, execution)
    for index in pending:
        yield worker.run(index)


def _run_units(
    opened: Dataset,
    recipe: Recipe,
    execution: Execution,
    pending: list[int],
    executor: Executor,
    observer: Observer,
) -> None:
    with RunLog(opened.uri) as log:
        log.write(
            "start", units=len(opened.unit_ids), pending=[opened.unit_ids[i] for i in pending]
        )
        for report in executor(opened.uri, recipe, execution, pending):
            log.write("unit", **asdict(report))
            observer.unit_done(report)
        log.write("done")


def _same_inputs(dataset: str, inputs: Inputs) -> None:
    """Refuse other images than those the plan was frozen from: they would silently be left out."""
    if not inputs.images:
        return
    frozen = tables.read_metadata(storage.join(dataset, layout.SOURCE))
    labels = Labels(suffix="", root=inputs.labels)
    asked = describe_inputs(inputs.images, inputs.include, inputs.exclude, labels)
    for name, value in asked.items():
        if frozen.get(name) != value:
            raise UsageError(
                f"{dataset} was planned with {name} {frozen.get(name)}, not {value}; "
                "its plan is frozen: choose another --out, or give the same inputs to resume"
            )


def _sweep(dataset: str) -> None:
    """Remove what killed attempts left: every unit is committed, no attempt is of use now."""
    root = storage.local_path(dataset)
    if root is not None:
        shutil.rmtree(root / "tmp", ignore_errors=True)
