"""Sources to one ranked table: listed, hashed, deduplicated, in an order that no listing shows."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog import storage
from catalog.sample import OK
from catalog.source.labels import Labels
from catalog.source.listing import Listing, list_parts
from catalog.source.ranking import rank
from catalog.tables import SOURCE
from pipeline.errors import UsageError
from pipeline.figures import counted
from pipeline.scan.chunks import Chunk, Chunks, Executor, scan_here
from pipeline.scan.duplicates import mark_duplicates
from pipeline.scan.secrets import check_no_secrets

Progress = Callable[[int, int], None]

SCAN = "scan"
"""Folder of a dataset that holds the pieces of a scan until the plan is frozen."""


def scan(
    images: Sequence[str],
    *,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    labels: Labels | None = None,
    allowed: Iterable[str] = (),
    perceptual: bool = False,
    folder: str | None = None,
    executor: Executor = scan_here,
    progress: Progress | None = None,
) -> tuple[pa.Table, dict[str, object]]:
    """Scan sources of images.

    Args:
        images: folders, images, tars or parquet files, by path or fsspec URI, in any order.
        include: glob patterns of which a path below its folder must match one.
        exclude: glob patterns of which it may match none.
        labels: where the ground truth of image files lies.
        allowed: folders below which a parquet table's paths are followed, beside its own.
        perceptual: decode each image for its perceptual hash, by which near duplicates are found.
        folder: URI where the scan's pieces lie, so that the same scan resumes; default nowhere that
            lasts. The caller removes it by `pipeline.scan.chunks.forget` once the table is safe.
        executor: reads the pieces: `pipeline.scan.chunks.scan_here`, or
            `pipeline.scan.on_ray.scan_on_ray`.
        progress: called with (parts done, parts in all).

    Returns:
        The table `catalog.tables.SOURCE`, usable rows first and ranked, and the metadata to keep
        with it.

    Raises:
        UsageError: no image file is found.
        SourceError: a URI does not exist.
        StorageUnavailable: a storage did not answer; the same scan goes on from there.
        DatasetError: an equal scan in the same folder was done first, and tidied up.
    """
    asked = describe_inputs(images, include, exclude, labels, allowed)

    def list_all() -> Listing:
        found = list_parts(
            images, include=asked["include"], exclude=asked["exclude"], labels=labels
        )
        if not found.table.num_rows:
            kinds = counted(found.ignored) or "none"
            raise UsageError(f"no image files in {', '.join(images)} (passed over: {kinds})")
        return found

    with _folder_or_temporary(folder) as where:
        chunks = Chunks(storage.absolute(where), {**asked, "perceptual": perceptual})
        listing = chunks.listing(list_all)
        cut = chunks.cut(listing.table)
        _run(chunks.missing(cut), listing.table.num_rows, perceptual, executor, progress)
        rows, passed = chunks.read(cut)
    ignored = dict(sorted((passed + Counter(listing.ignored)).items()))
    return to_ranked_table(mark_duplicates(rows)), {**asked, "ignored": ignored}


def describe_inputs(
    images: Iterable[str],
    include: Iterable[str],
    exclude: Iterable[str],
    labels: Labels | None,
    allowed: Iterable[str] = (),
) -> dict[str, list[str]]:
    """Return what a scan was asked for in the one form that is kept with its table."""
    asked = {
        "images": sorted({storage.absolute(uri) for uri in images}),
        "include": sorted(include),
        "exclude": sorted(exclude),
        "labels": [storage.absolute(labels.root)] if labels and labels.root else [],
        "allowed": sorted({storage.absolute(uri) for uri in allowed}),
    }
    for uri in (one for name in ("images", "labels", "allowed") for one in asked[name]):
        check_no_secrets(uri)
    return asked


def count_captions(rows: pa.Table) -> list[int]:
    """Return how many usable rows have a caption that is not blank, and how many are usable."""
    usable = pc.equal(rows["status"], OK)
    said = pc.fill_null(pc.match_substring_regex(rows["caption"], r"\S"), False)
    return [int(pc.sum(pc.and_(usable, said)).as_py() or 0), int(pc.sum(usable).as_py() or 0)]


def to_ranked_table(rows: pa.Table) -> pa.Table:
    """Return the usable rows ranked, in rank order, then the others in the order given."""
    ranked = rank(rows.filter(pc.equal(rows["status"], OK)))
    ranked = _set(ranked, "rank", pa.array(np.arange(ranked.num_rows)))
    return pa.concat_tables([ranked, rows.filter(pc.not_equal(rows["status"], OK))])


def _run(
    missing: Sequence[Chunk],
    parts: int,
    perceptual: bool,
    executor: Executor,
    progress: Progress | None,
) -> None:
    """Scan what is missing and tell of it, counting what an earlier scan has done."""
    done = parts - sum(map(len, missing))
    for more in executor(missing, perceptual):
        done += more
        if progress is not None:
            progress(done, parts)


@contextmanager
def _folder_or_temporary(folder: str | None) -> Iterator[str]:
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield scratch


def _set(table: pa.Table, name: str, values: object) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), SOURCE.field(name), values)
