"""The total order by resolution, the units cut from it, and the nested subsets.

Order: pixels descending, then the shorter side descending, then the sha256 of the bytes ascending.
No two rows are equal under it, so the order in which files were listed cannot show (paper, section
3.5, "Canny Edge (Alter)": subsets are sampled by ranked resolution).
"""

import hashlib
import math
import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog import spill
from catalog.errors import CatalogError

Policy: TypeAlias = Literal["top", "stratified"]
Ranking: TypeAlias = Literal["resolution", "popularity"]

STRATA = 10
"""Resolution quantiles from which a stratified subset draws equally."""

_KEYS = ["sha256", "width", "height", "popularity"]

_SUFFIXES = {"k": 1_000, "m": 1_000_000}


def rank(
    rows: pa.Table,
    *,
    by: Ranking = "resolution",
    width_column: str = "width",
    height_column: str = "height",
) -> pa.Table:
    """Return `rows` in rank order, best first: by their sizes in pixels as found, and sha256.

    By ``popularity``, the column of that name goes first, largest first and unknown last.
    """
    order = rank_order(rows, by=by, width_column=width_column, height_column=height_column)
    return spill.take(rows, order.to_numpy())


def rank_where(rows: pa.Table, mask: pa.ChunkedArray, *, by: Ranking = "resolution") -> np.ndarray:
    """Return the positions of the rows at which a mask is true, best first."""
    places = np.flatnonzero(mask.to_numpy())
    keys = spill.take(rows.select(_KEYS), places)
    order: np.ndarray = rank_order(keys, by=by).to_numpy()
    return np.asarray(places[order])


def in_order_of_place(rows: pa.Table) -> pa.Table:
    """Return rows in the stable order of a source: by URI, then by place in the container."""
    place = pc.fill_null(pc.coalesce(rows["offset"], rows["row"]), 0)
    keys = pa.table({"uri": rows["uri"], "place": place})
    order = pc.sort_indices(keys, sort_keys=[("uri", "ascending"), ("place", "ascending")])
    return spill.take(rows, order.to_numpy())


def rank_order(
    rows: pa.Table,
    *,
    by: Ranking = "resolution",
    width_column: str = "width",
    height_column: str = "height",
) -> pa.Array:
    """Return the positions in `rows`, best first, as `rank` orders them; needs the keys alone."""
    width, height = (pc.cast(rows[name], pa.int64()) for name in (width_column, height_column))
    keys = {
        "pixels": pc.multiply(width, height),
        "side": pc.min_element_wise(width, height),
        "sha256": rows["sha256"],
    }
    order = [("pixels", "descending"), ("side", "descending"), ("sha256", "ascending")]
    if by == "popularity":
        keys["popularity"] = pc.fill_null(rows["popularity"], -math.inf)
        order.insert(0, ("popularity", "descending"))
    return pc.sort_indices(pa.table(keys), sort_keys=order)


def unit_id(fingerprint: str, sha256s: Sequence[str], *, generation: int = 0) -> str:
    """Name a unit by what it is made from, recipe and ordered images; 32 hex characters.

    A later generation of the plan has other names for the same images.
    """
    planned_later = [f"generation {generation}"] if generation else []
    lines = "\n".join([fingerprint, *planned_later, *sha256s])
    return hashlib.sha256(lines.encode()).hexdigest()[:32]


def subset_ranks(total: int, count: int, *, policy: Policy, seed: int) -> np.ndarray:
    """Return the ascending positions, in rank order, of a subset of `count` out of `total` samples.

    A larger subset of the same policy and seed contains every smaller one: each is the first
    `count` entries of one order. ``top`` is the ranking itself. ``stratified`` cuts the ranking
    into 10 quantiles, shuffles each, and deals from them in turn.

    Raises:
        CatalogError: `count` is not in 1..total.
    """
    if not 1 <= count <= total:
        raise CatalogError(f"a subset of {count:,} cannot be taken from {total:,} samples")
    if policy == "top":
        return np.arange(count)
    return np.sort(_stratified_order(total, seed)[:count])


def parse_size(text: str) -> int:
    """Read a subset's size: ``1000``, ``1k``, ``3M``.

    Raises:
        CatalogError: the text is no positive whole number of samples.
    """
    digits, factor = text.strip().lower(), 1
    if digits[-1:] in _SUFFIXES:
        digits, factor = digits[:-1], _SUFFIXES[digits[-1]]
    if not digits.isascii() or not digits.isdigit() or int(digits) == 0:
        raise CatalogError(f"size {text!r} is not a number of samples; write 1000, 1k or 3M")
    return int(digits) * factor


def subset_name(count: int, *, policy: Policy, seed: int) -> str:
    """Return the name of a subset: ``1k``, ``10k-stratified-7``."""
    return format_size(count) + ("" if policy == "top" else f"-{policy}-{seed}")


def parse_subset(name: str) -> tuple[int, Policy, int]:
    """Return size, policy and seed of the subset of a name, as `subset_name` gives it.

    Raises:
        CatalogError: the name is none.
    """
    size, dash, draw = name.partition("-")
    count = parse_size(size)
    seed = draw.removeprefix("stratified-")
    if not dash:
        return count, "top", 0
    if seed == draw or not re.fullmatch(r"[0-9]{1,19}", seed):
        raise CatalogError(f"{name!r} names no subset; write 10k, or 10k-stratified-7")
    return count, "stratified", int(seed)


def format_size(count: int) -> str:
    """Write a size as a subset's name: 1000 -> ``1k``, 1234 -> ``1234``."""
    for suffix, factor in reversed(_SUFFIXES.items()):
        if count % factor == 0:
            return f"{count // factor}{suffix}"
    return str(count)


def _stratified_order(total: int, seed: int) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(seed))
    turns = np.empty(total)
    for stratum in np.array_split(np.arange(total), min(STRATA, total)):
        turns[stratum] = generator.permutation(len(stratum)) / len(stratum)
    return np.argsort(turns, kind="stable")
