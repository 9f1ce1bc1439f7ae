"""What a build starts from: sources to scan, the table of a scan, or another dataset."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from catalog import lookup, spill, storage, tables
from catalog.dataset import dataset as layout
from catalog.dataset import tombstones
from catalog.dataset.dataset import Dataset
from catalog.sample import REMOVED
from catalog.source.labels import Labels
from pipeline.errors import UsageError
from pipeline.recipe.recipe import Recipe
from pipeline.scan import from_dataset
from pipeline.scan.chunks import Executor, scan_here
from pipeline.scan.kept import keep_found, read_found
from pipeline.scan.scan import Progress, describe_inputs, scan

_FROZEN = "its plan is frozen: choose another --out, or give the same inputs to resume"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Where a build's images come from: sources to scan, a table of `scan`, another dataset.

    Attributes:
        images: URIs of folders, tars, parquet files and images.
        source: URI of a source.parquet.
        dataset: URI of a finished dataset.
        include: glob patterns; see `pipeline.scan.scan.scan`.
        exclude: glob patterns.
        labels: URI of a folder of ground truth whose tree mirrors the images'.
        allowed: folders below which a parquet table's paths are followed, beside its own.
    """

    images: Sequence[str] = ()
    source: str | None = None
    dataset: str | None = None
    include: Iterable[str] = ()
    exclude: Iterable[str] = ()
    labels: str | None = None
    allowed: Sequence[str] = ()


def load_source(
    recipe: Recipe,
    inputs: Inputs,
    *,
    progress: Progress,
    folder: str | None = None,
    scanner: Executor = scan_here,
    dataset: str | None = None,
) -> tuple[pa.Table, dict[str, object]]:
    """Scan the sources, or read the table that an earlier scan wrote.

    Of a dataset's table, what was taken down there has the status ``removed``.

    Args:
        recipe: of the dataset that it is for.
        inputs: where the images come from.
        progress: is told how far the scan is.
        folder: where its pieces lie, so that it resumes.
        scanner: reads the pieces.
        dataset: URI of the dataset that it is for, which keeps what is found: of files that are as
            its last scan found them nothing is read. None keeps nothing.
    """
    if inputs.dataset is not None:
        return from_dataset.committed_source(inputs.dataset, recipe)
    if inputs.source is not None:
        table = tables.read_table(inputs.source)
        if table.schema.names != tables.SOURCE.names:
            raise UsageError(
                f"{inputs.source} is no source table; make one with: scan --images URI"
            )
        metadata = tables.read_metadata(inputs.source)
        table = table.cast(tables.SOURCE)  # a map's inner names differ once it is read
        home = home_of(inputs.source)
        keys = tombstones.removed_keys(home) if home else set[str]()
        return tombstones.mark_removed(table, keys), metadata
    found = scan(
        inputs.images,
        include=inputs.include,
        exclude=inputs.exclude,
        labels=Labels(suffix=recipe.labels.suffix, root=inputs.labels) if recipe.labels else None,
        allowed=inputs.allowed,
        perceptual=recipe.rules.near_duplicates is not None,
        folder=folder,
        executor=scanner,
        progress=progress,
        earlier=read_found(dataset) if dataset else None,
    )
    if dataset:
        keep_found(dataset, found.found)
    return found.table, found.metadata


def with_earlier(dataset: Dataset, inputs: Inputs) -> Inputs:
    """Return the images that a dataset is of now, with those that are given.

    A table or a dataset stands for itself: it tells of all images.

    Raises:
        UsageError: it was made of such a table, and nobody can scan what that told of.
    """
    if inputs.source is not None or inputs.dataset is not None:
        return inputs
    told = dataset.source_metadata()
    if not told.get("images"):
        raise UsageError(
            f"{dataset.uri} was made from {told.get('from', 'a table')}: give the table or dataset "
            "that tells of all its images, with --source or --from"
        )
    labels = [one for one in (inputs.labels, *told.get("labels", [])) if one is not None]
    return Inputs(
        images=sorted({*told["images"], *map(storage.absolute, inputs.images)}),
        include=[*told.get("include", []), *inputs.include],
        exclude=[*told.get("exclude", []), *inputs.exclude],
        labels=labels[0] if labels else None,
        allowed=[*told.get("allowed", []), *inputs.allowed],
    )


def home_of(source: str | None) -> str | None:
    """Return the dataset that a source.parquet lies in; None for any other table, or none."""
    if source is None:
        return None
    folder = source.rpartition("/")[0] or ("/" if source.startswith("/") else ".")
    return folder if storage.exists(storage.join(folder, layout.RECIPE)) else None


def check_same_inputs(dataset: str, inputs: Inputs) -> None:
    """Refuse other images than those the plan was frozen from: they would silently be left out."""
    frozen = tables.read_metadata(storage.join(dataset, layout.SOURCE))
    for name, value in _asked(inputs).items():
        was = frozen.get(name, [])  # an older scan knew fewer
        if _plain(was) != _plain(value):
            raise UsageError(f"{dataset} was planned with {name} {was}, not {value}; {_FROZEN}")
    if inputs.source is not None and not _same_rows(dataset, inputs.source):
        raise UsageError(f"{dataset} was planned from other images than {inputs.source}; {_FROZEN}")


def _asked(inputs: Inputs) -> Mapping[str, object]:
    """Return what is said of the images, by the names that are kept with a source table."""
    if inputs.dataset is not None:
        return from_dataset.describe(inputs.dataset)
    labels = Labels(suffix="", root=inputs.labels)
    asked = describe_inputs(inputs.images, inputs.include, inputs.exclude, labels, inputs.allowed)
    return asked if inputs.images else {name: value for name, value in asked.items() if value}


def _plain(value: object) -> object:
    """Return URIs of folders without the slash that may end them."""
    return [one.rstrip("/") for one in value] if isinstance(value, list) else value


def _same_rows(dataset: str, source: str) -> bool:
    """Say whether a table tells of the images and captions that a plan was frozen from.

    Of what was taken down since, only the hash may be left.
    """
    ours, theirs = (
        tables.read_table(uri, ["sha256", "status", "caption"])
        for uri in (storage.join(dataset, layout.SOURCE), source)
    )
    gone = ours.filter(pc.equal(ours["status"], REMOVED))["sha256"]
    ours, theirs = (
        _sorted(one.filter(pc.invert(lookup.is_in(one["sha256"], gone))), "sha256", "caption")
        for one in (ours, theirs)
    )
    return bool(ours.equals(theirs))


def _sorted(table: pa.Table, *names: str) -> pa.Table:
    order = pc.sort_indices(table, [(name, "ascending") for name in names])
    return spill.take(table.select(names), order.to_numpy())
