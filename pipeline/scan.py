"""Sources to one ranked table: listed, hashed, deduplicated, in an order that no listing shows."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial

import pyarrow as pa

from catalog import storage
from catalog.labels import Labels
from catalog.ranking import rank
from catalog.sample import OK
from catalog.source_rows import SourceRow
from catalog.sources import Part, list_parts, scan_part
from catalog.tables import SOURCE
from pipeline.errors import UsageError

Progress = Callable[[int, int], None]

_THREADS = 8  # reading waits for the disk or the network; hashing releases the interpreter lock


def scan(
    images: Sequence[str],
    *,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    labels: Labels | None = None,
    perceptual: bool = False,
    progress: Progress | None = None,
) -> tuple[pa.Table, dict[str, object]]:
    """Scan sources of images.

    Args:
        images: folders, images, tars or parquet files, by path or fsspec URI, in any order.
        include: glob patterns of which a path below its folder must match one.
        exclude: glob patterns of which it may match none.
        labels: where the ground truth of image files lies.
        perceptual: decode each image for its perceptual hash, by which near duplicates are found.
        progress: called with (parts done, parts in all).

    Returns:
        The table `catalog.tables.SOURCE`, usable rows first and ranked, and the metadata to keep
        with it.

    Raises:
        UsageError: no image file is found.
        SourceError: a URI does not exist.
    """
    asked = describe_inputs(images, include, exclude, labels)
    listing = list_parts(images, include=asked["include"], exclude=asked["exclude"], labels=labels)
    if not listing.parts:
        passed = ", ".join(f"{n} {kind}" for kind, n in sorted(listing.ignored.items()))
        raise UsageError(f"no image files in {', '.join(images)} (passed over: {passed or 'none'})")
    rows = mark_duplicates(_scan_parts(listing.parts, perceptual, progress))
    return to_ranked_table(rows), {**asked, "ignored": listing.ignored}


def describe_inputs(
    images: Iterable[str], include: Iterable[str], exclude: Iterable[str], labels: Labels | None
) -> dict[str, list[str]]:
    """Return what a scan was asked for in the one form that is kept with its table."""
    return {
        "images": sorted({storage.absolute(uri) for uri in images}),
        "include": sorted(include),
        "exclude": sorted(exclude),
        "labels": [storage.absolute(labels.root)] if labels and labels.root else [],
    }


def mark_duplicates(rows: Iterable[SourceRow]) -> list[SourceRow]:
    """Keep the first of each sha256 in the stable order of places; the others are rejected rows."""
    first: dict[str, SourceRow] = {}
    marked = []
    for row in sorted(rows, key=lambda row: row.place):
        if row.status == OK and row.sha256 is not None:
            kept = first.setdefault(row.sha256, row)
            if kept is not row:
                row = replace(row, status="rejected:duplicate", detail=f"same bytes as {kept.uri}")
        marked.append(row)
    return marked


def to_ranked_table(rows: Iterable[SourceRow]) -> pa.Table:
    """Return the rows as a table: usable ones ranked, in rank order, then the others by place."""
    good: list[dict[str, object]] = []
    bad: list[dict[str, object]] = []
    for row in rows:
        (good if row.status == OK else bad).append(_record(row))
    ranked = rank(pa.Table.from_pylist(good, schema=SOURCE))
    at = SOURCE.get_field_index("rank")
    ranked = ranked.set_column(at, SOURCE.field(at), pa.array(range(len(good)), pa.int64()))
    return pa.concat_tables([ranked, pa.Table.from_pylist(bad, schema=SOURCE)])


def _record(row: SourceRow) -> dict[str, object]:
    record = asdict(row)
    record["scores"] = list(row.scores.items())
    return record


def _scan_parts(
    parts: Sequence[Part], perceptual: bool, progress: Progress | None
) -> list[SourceRow]:
    rows: list[SourceRow] = []
    read = partial(scan_part, perceptual=perceptual)
    with ThreadPoolExecutor(_THREADS) as pool:
        for done, found in enumerate(pool.map(read, parts), start=1):
            rows.extend(found)
            if progress is not None:
                progress(done, len(parts))
    return rows
