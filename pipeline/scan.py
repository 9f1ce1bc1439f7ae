"""Sources to one ranked table: listed, hashed, deduplicated, in an order that no listing shows."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog import storage
from catalog.labels import Labels
from catalog.ranking import rank_order
from catalog.sample import OK
from catalog.source_rows import SourceRow, to_table
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
    progress: Progress | None = None,
) -> tuple[pa.Table, dict[str, object]]:
    """Scan sources of images.

    Args:
        images: folders, images, tars or parquet files, by path or fsspec URI, in any order.
        include: glob patterns of which a path below its folder must match one.
        exclude: glob patterns of which it may match none.
        labels: where the ground truth of image files lies.
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
    rows = to_table(_scan_parts(listing.parts, progress))
    return rank_rows(rows), {**asked, "ignored": listing.ignored}


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


def rank_rows(rows: pa.Table) -> pa.Table:
    """Return scanned rows with the usable ones ranked in front, then the others by place.

    Whatever the order of `rows`: a place is a URI and a position in that container.
    """
    by_place = _order_of_places(rows)
    rows = mark_duplicates(rows, by_place)
    good = pc.equal(rows["status"], OK).to_numpy(zero_copy_only=False)
    usable, rest = np.flatnonzero(good), by_place[~good[by_place]]
    keys = rows.select(["width", "height", "sha256"]).take(usable)
    ranked = rows.take(usable[rank_order(keys).to_numpy()])
    ranks = pa.array(np.arange(len(usable)), pa.int64())
    at = SOURCE.get_field_index("rank")
    return pa.concat_tables([ranked.set_column(at, SOURCE.field(at), ranks), rows.take(rest)])


def mark_duplicates(rows: pa.Table, by_place: np.ndarray) -> pa.Table:
    """Keep the first of each sha256 in the order `by_place`; the others become rejected rows."""
    hashed = pc.and_(pc.equal(rows["status"], OK), pc.is_valid(rows["sha256"]))
    usable = by_place[hashed.to_numpy(zero_copy_only=False)[by_place]]
    hashes = rows["sha256"].take(usable).combine_chunks().dictionary_encode()
    codes = hashes.indices.to_numpy()  # counted up in the order in which hashes first appear
    new = np.diff(np.maximum.accumulate(codes), prepend=-1) > 0
    copies, firsts = usable[~new], usable[new][codes[~new]]
    in_order = np.argsort(copies)
    names = rows["uri"].take(firsts[in_order]).combine_chunks()
    copied = np.zeros(rows.num_rows, bool)
    copied[copies] = True
    details = pc.binary_join_element_wise("same bytes as ", names, "")
    details = pc.replace_with_mask(rows["detail"].combine_chunks(), copied, details)
    status = pc.if_else(copied, "rejected:duplicate", rows["status"])
    return _replace(_replace(rows, "status", status), "detail", details)


def _order_of_places(rows: pa.Table) -> np.ndarray:
    keys = {"uri": rows["uri"], "place": pc.coalesce(rows["offset"], rows["row"], 0)}
    order = [("uri", "ascending"), ("place", "ascending")]
    found: np.ndarray = pc.sort_indices(pa.table(keys), sort_keys=order).to_numpy()
    return found


def _replace(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    at = SOURCE.get_field_index(name)
    return rows.set_column(at, SOURCE.field(at), values)


def _scan_parts(parts: Sequence[Part], progress: Progress | None) -> list[SourceRow]:
    rows: list[SourceRow] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for done, found in enumerate(pool.map(scan_part, parts), start=1):
            rows.extend(found)
            if progress is not None:
                progress(done, len(parts))
    return rows
