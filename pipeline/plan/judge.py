"""A scanned table judged by a recipe, ranked, and cut into units: tables in, tables out."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog import spill, tables
from catalog.images import target_size
from catalog.sample import OK
from catalog.source.ranking import in_order_of_place, rank_where, unit_id
from pipeline.plan import source_rules
from pipeline.recipe.recipe import Recipe

# Measured on the 24 Kodak photographs at 512 x 512: JPEG of quality 95, and a Canny map as PNG.
_IMAGE_BYTES_A_PIXEL = 0.55
_MAP_BYTES_A_PIXEL = 0.16


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSummary:
    """What a build would do.

    Attributes:
        fingerprint: of the recipe.
        units: units of work.
        images: images to annotate.
        rejects: images already rejected, by status.
        pixels: of all images as they will be stored.
        bytes_to_read: sum of the encoded images' sizes.
        bytes_to_write: an estimate from photographs at 512 x 512.
    """

    fingerprint: str
    units: int
    images: int
    rejects: dict[str, int]
    pixels: int
    bytes_to_read: int
    bytes_to_write: int


def judge(source: pa.Table, recipe: Recipe) -> pa.Table:
    """Rank scanned rows and apply a recipe's limits; what breaks one is a rejected row.

    A table that was judged before, by whatever recipe, is judged as if it came from the scan.
    """
    source = source_rules.acquit(source)
    rules = recipe.rules
    pixels = pc.multiply(pc.cast(source["width"], pa.int64()), source["height"])
    broken = [
        ("max_bytes", source["length"], pc.greater(source["length"], rules.max_bytes)),
        ("max_pixels", pixels, pc.greater(pixels, rules.max_pixels)),
    ]
    sides = source["width"], source["height"]
    short, long = pc.min_element_wise(*sides), pc.max_element_wise(*sides)
    aspect = pc.divide(pc.cast(long, pa.float64()), short)
    broken.append(("max_aspect", aspect, pc.greater(aspect, rules.max_aspect)))
    broken.append(("min_side", short, pc.less(short, rules.min_side)))
    for rule, measured, breaks in broken:
        hit = pc.and_(pc.equal(source["status"], OK), pc.fill_null(breaks, False))
        limit = float(getattr(rules, rule))
        source = _set(
            source,
            "value",
            pc.if_else(hit, pc.cast(measured, "double", safe=False), source["value"]),
        )
        source = _set(source, "threshold", pc.if_else(hit, limit, source["threshold"]))
        source = _set(source, "status", pc.if_else(hit, f"rejected:{rule}", source["status"]))
    if recipe.labels is not None:
        hit = pc.and_(pc.equal(source["status"], OK), pc.is_null(source["label"]))
        source = _set(source, "status", pc.if_else(hit, "rejected:label", source["status"]))
    if rules.filter is not None:
        source = source_rules.apply_filter(source, rules.filter)
    usable = pc.equal(source["status"], OK)
    kept = spill.take(source, rank_where(source, usable, by=recipe.ranking))
    lost = spill.where(source, pc.invert(usable))
    if rules.near_duplicates is not None:
        kept, near = source_rules.split_near_duplicates(kept, rules.near_duplicates)
        lost = pa.concat_tables([lost, near])
    lost = in_order_of_place(lost)
    places = pa.array(np.arange(kept.num_rows))
    kept = _set(kept, "rank", places)
    if recipe.max_images is not None:
        kept = _cut_off(kept, recipe.max_images)
    lost = _set(lost, "rank", pa.nulls(lost.num_rows, pa.int64()))
    return pa.concat_tables([kept, lost])


def _cut_off(ranked: pa.Table, most: int) -> pa.Table:
    """Reject what ranks behind the first `most`; the value is the place in the ranking, from 1."""
    good, more = ranked.slice(0, most), ranked.slice(most)
    places = pc.cast(pc.add(more["rank"], 1), pa.float64())
    more = _set(more, "value", places)
    more = _set(more, "threshold", pa.array([float(most)] * more.num_rows, pa.float64()))
    more = _set(more, "status", pa.array(["rejected:max_images"] * more.num_rows, pa.string()))
    return pa.concat_tables([good, _set(more, "rank", pa.nulls(more.num_rows, pa.int64()))])


def cut_units(source: pa.Table, recipe: Recipe) -> tuple[pa.Table, list[str]]:
    """Cut the usable rows of a judged source into units; return the plan and the unit ids."""
    rows = spill.where(source, pc.equal(source["status"], OK))
    return cut_rows(rows.drop_columns(tables.OF_SCAN_ALONE), recipe)


def cut_rows(
    rows: pa.Table, recipe: Recipe, *, generation: int = 0, first: int = 0
) -> tuple[pa.Table, list[str]]:
    """Cut ranked rows into the units of a generation, numbered from `first` on.

    Returns:
        The plan, of the schema `catalog.tables.PLAN`, and the unit ids.
    """
    size = recipe.samples_per_unit
    units = pa.array(first + np.arange(rows.num_rows) // size, pa.int32())
    plan = rows.add_column(0, tables.PLAN.field("unit"), units).cast(tables.PLAN)
    hashes = rows["sha256"]
    if recipe.labels is not None:
        hashes = pc.binary_join_element_wise(hashes, rows["label_sha256"], " ")
    cuts = [hashes[at : at + size].to_pylist() for at in range(0, len(hashes), size)]
    return plan, [unit_id(recipe.fingerprint, cut, generation=generation) for cut in cuts]


def summarize(source: pa.Table, recipe: Recipe) -> PlanSummary:
    """Say what a judged source would come to, without writing anything."""
    plan, unit_ids = cut_units(source, recipe)
    rejects = tables.count_values(source["status"])
    rejects.pop(OK, None)
    options = recipe.image
    pixels = 0
    for size in plan.group_by(["width", "height"]).aggregate([([], "count_all")]).to_pylist():
        width, height = target_size(
            size["width"], size["height"], resolution=options.resolution, crop=options.crop
        )
        pixels += width * height * size["count_all"]
    per_pixel = _IMAGE_BYTES_A_PIXEL + _MAP_BYTES_A_PIXEL * len(recipe.conditions)
    return PlanSummary(
        fingerprint=recipe.fingerprint,
        units=len(unit_ids),
        images=plan.num_rows,
        rejects=rejects,
        pixels=pixels,
        bytes_to_read=pc.sum(plan["length"]).as_py() or 0,
        bytes_to_write=round(pixels * per_pixel),
    )


def _set(table: pa.Table, name: str, values: Any) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(name), values)
