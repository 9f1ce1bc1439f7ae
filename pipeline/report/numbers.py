"""What a report counts, gathered from a dataset's ledger by columns; nothing is drawn here."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog import tables
from catalog.dataset.dataset import SUBSETS, Dataset, Status
from catalog.sample import KEY_CHARACTERS
from pipeline.report.histogram import Histogram, Mark, count
from pipeline.report.parameters import read_parameters
from pipeline.report.words import Captions, count_captions

NEAR_DUPLICATE = "rejected:near_duplicate"

_UNIT_SPAN = (0.0, 1.0)
_TWENTIETHS = 20
_FRACTIONS = "fractions"
_GROUPS = 8  # near-duplicate groups shown
_CHOICES = 12  # different words shown of a drawn word


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Images that gave no sample for one reason.

    Attributes:
        status: as in the ledger: ``rejected:<rule>``, ``failed:<class>`` or ``removed``.
        count: images.
        measured: smallest, median and largest measured value, where the rule measures.
        threshold: what they were judged by; None where it is not one number.
    """

    status: str
    count: int
    measured: tuple[float, float, float] | None
    threshold: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What the ledger says of one condition's maps.

    Attributes:
        name: of the condition.
        coverage: share of a map's pixels that are not black.
        drawn: histograms of every other number, by name.
        choices: how often each of a few words or truths was drawn, by name.
        people: people found in an image, where people are looked for.
        kept_fraction: keypoints found of the most complete person of each sample, 0..1.
        rejected_fraction: the same of the images that were rejected for it.
    """

    name: str
    coverage: Histogram | None
    drawn: dict[str, Histogram]
    choices: dict[str, dict[str, int]]
    people: Histogram | None = None
    kept_fraction: Histogram | None = None
    rejected_fraction: Histogram | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subset:
    """A subset: its samples, and the fewest megapixels in it where it is cut by resolution."""

    name: str
    samples: int
    megapixels: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NearDuplicates:
    """Images rejected because another looks like them.

    Attributes:
        images: rejected images.
        groups: kept images that they look like.
        sizes: rejected images of a group.
        largest: keys of kept images with their number of rejected ones, most first.
    """

    images: int
    groups: int
    sizes: Histogram | None
    largest: list[tuple[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """All counts of a report; see the attributes' types.

    Attributes:
        status: the dataset's counts.
        reasons: commonest first.
        subsets: smallest first.
        megapixels: of the kept images as found, with the subsets' cut-offs.
        short_side: of the kept images as found, in pixels, with the stored size.
        enlarged: samples whose short side was smaller than the stored size.
        conditions: in order of name.
        captions: of the kept samples.
        near_duplicates: None where no image was rejected for it.
    """

    status: Status
    reasons: list[Reason]
    subsets: list[Subset]
    megapixels: Histogram | None
    short_side: Histogram | None
    enlarged: int
    conditions: list[Condition]
    captions: Captions
    near_duplicates: NearDuplicates | None


def gather(dataset: Dataset, samples: pa.Table, rejects: pa.Table) -> Numbers:
    """Count a finished dataset.

    Args:
        dataset: whose recipe and subsets are told.
        samples: the table of its view of everything.
        rejects: its `Dataset.rejects`.
    """
    subsets = read_subsets(dataset)
    resolution = int(dataset.recipe.get("image", {}).get("resolution", 0))
    short = pc.min_element_wise(samples["source_width"], samples["source_height"])
    cut_offs = [Mark(at=s.megapixels, label=s.name) for s in subsets if s.megapixels is not None]
    stored = (Mark(at=resolution, label=f"stored at {resolution}"),) if resolution else ()
    return Numbers(
        status=dataset.status(),
        reasons=count_reasons(rejects),
        subsets=subsets,
        megapixels=count(_megapixels(samples), marks=tuple(cut_offs), log=True),
        short_side=count(short, marks=stored, log=True),
        enlarged=int(pc.sum(pc.less(short, resolution)).as_py() or 0),
        conditions=count_conditions(samples["parameters"], rejects, dataset.recipe),
        captions=count_captions(samples["caption"]),
        near_duplicates=group_near_duplicates(rejects),
    )


def count_reasons(rejects: pa.Table) -> list[Reason]:
    """Count the rejected images by status, commonest first."""
    rows = rejects.select(["status", "value", "threshold"]).group_by("status")
    tallied = rows.aggregate(
        [
            ("value", "min"),
            ("value", "approximate_median"),
            ("value", "max"),
            ("threshold", "min"),
            ("threshold", "max"),
            ("status", "count"),
        ]
    )
    reasons = [_reason(row) for row in tallied.to_pylist()]
    return sorted(reasons, key=lambda reason: (-reason.count, reason.status))


def _reason(row: Mapping[str, Any]) -> Reason:
    values = row["value_min"], row["value_approximate_median"], row["value_max"]
    one = row["threshold_min"] == row["threshold_max"]
    return Reason(
        status=row["status"],
        count=row["status_count"],
        measured=None if values[0] is None else values,
        threshold=row["threshold_min"] if one else None,
    )


def read_subsets(dataset: Dataset) -> list[Subset]:
    """Read the subsets' sizes and cut-offs; only a best-by-resolution subset has a cut-off."""
    ranked = dataset.recipe.get("ranking", "resolution") == "resolution"
    found = []
    for name in dataset.subsets():
        table = dataset.view(name, columns=["source_width", "source_height"]).table
        record = tables.read_metadata(dataset.path(SUBSETS, f"{name}.parquet")).get("subset", {})
        cut = ranked and record.get("policy") == "top" and table.num_rows
        least = float(np.min(_megapixels(table))) if cut else None
        found.append(Subset(name=name, samples=table.num_rows, megapixels=least))
    return found


def _megapixels(table: pa.Table) -> np.ndarray:
    width = pc.cast(table["source_width"], pa.float64())
    pixels = pc.multiply(width, table["source_height"])
    return np.asarray(pc.divide(pixels, 1e6).to_numpy())


def count_conditions(
    parameters: pa.ChunkedArray, rejects: pa.Table, recipe: Mapping[str, Any]
) -> list[Condition]:
    """Count what was drawn and measured for each condition."""
    specs = {spec["condition"]: spec for spec in recipe.get("detectors", [])}
    least = float(recipe.get("rules", {}).get("min_coverage", 0))
    columns = read_parameters(parameters)
    return [
        _condition(name, columns.get(name, pa.table({})), rejects, specs.get(name, {}), least)
        for name in sorted(columns.keys() | specs.keys())
    ]


def _condition(
    name: str, values: pa.Table, rejects: pa.Table, spec: Mapping[str, Any], least: float
) -> Condition:
    coverage: Histogram | None = None
    drawn: dict[str, Histogram] = {}
    choices: dict[str, dict[str, int]] = {}
    for field in values.schema:
        column = values[field.name]
        if field.name == "coverage":
            marks = (Mark(at=least, label=f"at least {least:g}"),) if least else ()
            coverage = count(column, span=_from_zero(column), marks=marks)
        elif pa.types.is_floating(field.type):
            if (histogram := count(column)) is not None:
                drawn[field.name] = histogram
        elif not pa.types.is_list(field.type):
            choices[field.name] = _tally(column)
    made = Condition(name=name, coverage=coverage, drawn=drawn, choices=choices)
    return _with_people(made, values, rejects, spec) if _FRACTIONS in values.schema.names else made


def _from_zero(column: pa.ChunkedArray) -> tuple[float, float]:
    """Return a span from nothing to the next twentieth above the largest share."""
    largest = pc.max(column).as_py() or 0.0
    return 0.0, max(1, math.ceil(round(largest * _TWENTIETHS, 6))) / _TWENTIETHS


def _with_people(
    made: Condition, values: pa.Table, rejects: pa.Table, spec: Mapping[str, Any]
) -> Condition:
    fractions = values[_FRACTIONS].combine_chunks()
    asked = spec.get("fraction")
    hit = pc.equal(rejects["status"], "rejected:keypoints")
    if asked is not None:  # of several poses each has its own
        hit = pc.and_(hit, pc.fill_null(pc.equal(rejects["threshold"], asked), False))
    refused = rejects.filter(hit)["value"]
    marks = () if asked is None else (Mark(at=asked, label=f"asked for {asked:g}"),)
    return replace(
        made,
        people=count(pc.list_value_length(fractions)),
        kept_fraction=count(_largest(fractions), span=_UNIT_SPAN, marks=marks, bins=_TWENTIETHS),
        rejected_fraction=count(refused, span=_UNIT_SPAN, marks=marks, bins=_TWENTIETHS),
    )


def _largest(lists: pa.ListArray) -> np.ndarray:
    """Return the largest number of each list that is not empty."""
    grouped = pa.table({"at": pc.list_parent_indices(lists), "value": pc.list_flatten(lists)})
    return np.asarray(grouped.group_by("at").aggregate([("value", "max")])["value_max"].to_numpy())


def _tally(column: pa.ChunkedArray) -> dict[str, int]:
    counted = column.drop_null().value_counts()
    pairs = zip(
        counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True
    )
    named = {value if isinstance(value, str) else json.dumps(value): n for value, n in pairs}
    return dict(sorted(named.items(), key=lambda pair: (-pair[1], pair[0]))[:_CHOICES])


def kept_keys(rows: pa.Table) -> pa.ChunkedArray:
    """Return the key of the image that was kept instead of each near duplicate; null for none."""
    return pc.utf8_slice_codeunits(rows["against"], 0, KEY_CHARACTERS)


def group_near_duplicates(rejects: pa.Table) -> NearDuplicates | None:
    """Group the near duplicates by the image that was kept instead of them."""
    rows = rejects.filter(pc.equal(rejects["status"], NEAR_DUPLICATE))
    if not len(rows):
        return None
    groups = pa.table({"key": kept_keys(rows)}).drop_null()
    sizes = groups.group_by("key").aggregate([("key", "count")])
    order = [("key_count", "descending"), ("key", "ascending")]
    best = sizes.take(pc.sort_indices(sizes, sort_keys=order)).slice(0, _GROUPS)
    return NearDuplicates(
        images=len(rows),
        groups=sizes.num_rows,
        sizes=count(sizes["key_count"]),
        largest=[(row["key"], row["key_count"]) for row in best.to_pylist()],
    )
