"""Sources to one ranked table: listed, hashed, deduplicated, in an order that no listing shows."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog import lookup, spill, storage
from catalog.sample import OK
from catalog.source.labels import Labels
from catalog.source.listing import list_parts
from catalog.source.ranking import rank_where
from catalog.tables import SOURCE
from pipeline.errors import UsageError
from pipeline.figures import counted
from pipeline.scan.chunks import FORM, Chunk, Chunks, Executor, name_parts, scan_here
from pipeline.scan.duplicates import mark_duplicates
from pipeline.scan.secrets import check_no_secrets

Progress = Callable[[int, int], None]

SCAN = "scan"
"""Folder of a dataset that holds the pieces of a scan until the plan is frozen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a scan found, as it is kept for the next one.

    Attributes:
        rows: `pipeline.scan.chunks.FOUND`, in no order.
        passed: by the URI of a part, how many files of which kind were passed over in it.
        form: of the rows: what else they depend on, but for the files.
    """

    rows: pa.Table
    passed: dict[str, dict[str, int]]
    form: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A scan.

    Attributes:
        table: `catalog.tables.SOURCE`, usable rows first and ranked.
        metadata: to keep with it.
        found: to go on from.
        read: files and containers that were read.
        unchanged: those of which an earlier scan told.
    """

    table: pa.Table
    metadata: dict[str, object]
    found: Found
    read: int
    unchanged: int


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
    earlier: Found | None = None,
) -> Scan:
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
        earlier: what an earlier scan found; files that are as they were are not read again.

    Raises:
        UsageError: no image file is found.
        SourceError: a URI does not exist.
        StorageUnavailable: a storage did not answer; the same scan goes on from there.
        DatasetError: an equal scan in the same folder was done first, and tidied up.
    """
    asked = describe_inputs(images, include, exclude, labels, allowed)
    listing = list_parts(images, include=asked["include"], exclude=asked["exclude"], labels=labels)
    if not listing.table.num_rows:
        kinds = counted(listing.ignored) or "none"
        raise UsageError(f"no image files in {', '.join(images)} (passed over: {kinds})")
    form = {"form": FORM, "perceptual": perceptual, "allowed": asked["allowed"]}
    kept, changed = _split(listing.table, earlier if earlier and earlier.form == form else None)
    with _folder_or_temporary(folder) as where:
        chunks = Chunks(storage.absolute(where), {**asked, "perceptual": perceptual})
        cut = chunks.cut(changed)
        _run(chunks.missing(cut), changed.num_rows, perceptual, executor, progress)
        rows, passed = chunks.read(cut)
    if kept is not None:
        rows, passed = pa.concat_tables([kept.rows, rows]), kept.passed | passed
    ignored = sum((Counter(one) for one in passed.values()), Counter(listing.ignored))
    return Scan(
        table=to_ranked_table(mark_duplicates(rows.drop_columns("part"))),
        metadata={**asked, "ignored": dict(sorted(ignored.items()))},
        found=Found(rows=rows, passed=passed, form=form),
        read=changed.num_rows,
        unchanged=listing.table.num_rows - changed.num_rows,
    )


def _split(listed: pa.Table, earlier: Found | None) -> tuple[Found | None, pa.Table]:
    """Return what an earlier scan found of parts that are as they were, and the other parts.

    What could not be read then is read again, and so is a table that tells of files elsewhere.
    """
    if earlier is None:
        return None, listed
    rows, parts = earlier.rows, name_parts(listed)
    uris = pc.list_element(pc.split_pattern(rows["part"], "\n", max_splits=1), 0)
    doubtful = pc.or_(pc.starts_with(rows["status"], "failed:"), pc.not_equal(uris, rows["uri"]))
    doubtful = rows["part"].filter(pc.fill_null(doubtful, True))
    known = rows.filter(pc.invert(lookup.is_in(rows["part"], doubtful)))
    stays = pc.is_in(parts, pc.unique(known["part"]), skip_nulls=True)
    kept = known.filter(pc.is_in(known["part"], pc.unique(parts.filter(stays))))
    there = set(listed["uri"].filter(stays).to_pylist()) & earlier.passed.keys()
    passed = {uri: earlier.passed[uri] for uri in sorted(there)}
    return Found(rows=kept, passed=passed, form=earlier.form), listed.filter(pc.invert(stays))


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
    usable = pc.equal(rows["status"], OK)
    ranked, others = rank_where(rows, usable), np.flatnonzero(pc.invert(usable).to_numpy())
    rows = spill.take(rows, np.concatenate([ranked, others]))
    ranks = [pa.array(np.arange(len(ranked))), *rows["rank"].slice(len(ranked)).chunks]
    return _set(rows, "rank", pa.chunked_array(ranks))


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
