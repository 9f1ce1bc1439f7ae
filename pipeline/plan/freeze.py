"""The frozen plan: which images, in which order, cut into which units; written once."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from catalog import storage, tables
from catalog.dataset import dataset as layout
from catalog.errors import DatasetError
from pipeline.errors import UsageError
from pipeline.figures import counted
from pipeline.plan.judge import cut_units, judge
from pipeline.recipe.made_by import in_format
from pipeline.recipe.recipe import Recipe
from pipeline.scan.scan import count_captions

UNUSABLE = "logs/unusable.parquet"
"""What was found, of the schema `catalog.tables.SOURCE`, where none of it is usable."""

_SHOWN = 3  # images whose reasons are told where none is usable


def claim(dataset: str, recipe: Recipe) -> None:
    """Make `dataset` a dataset of this recipe; harmless where it is one already.

    Raises:
        DatasetError: it belongs to another recipe.
    """
    uri = storage.join(dataset, layout.RECIPE)
    try:
        storage.create_once(uri, recipe.to_json())
    except FileExistsError:
        theirs = json.loads(storage.read_bytes(uri))
        if theirs["fingerprint"] != recipe.fingerprint:
            changed = ", ".join(_differences(theirs["recipe"], recipe.to_dict())) or (
                "code format: this version makes other bytes of the same recipe"
            )
            raise DatasetError(
                f"{dataset} belongs to recipe {theirs['fingerprint'][:12]}, this one is "
                f"{recipe.fingerprint[:12]}; they differ in: {changed}. Choose another --out."
            ) from None


def as_begun(dataset: str, recipe: Recipe, *, captions: bool) -> Recipe:
    """Return the recipe in the format of the dataset, where that was begun already.

    With `captions`, it has the captions of the dataset as well, where these alone are others: for
    a shipped recipe whose captions nobody chose, as that of an earlier version said other ones.
    """
    try:
        theirs = json.loads(storage.read_bytes(storage.join(dataset, layout.RECIPE)))
        recipe = in_format(recipe, theirs["format"])
        if not captions:
            return recipe
        begun = recipe.model_copy(
            update={"captions": Recipe.model_validate(theirs["recipe"]).captions}
        )
        return begun if begun.fingerprint == theirs["fingerprint"] else recipe
    except (OSError, ValueError, KeyError):  # none yet, or `claim` says what is wrong
        return recipe


def freeze(dataset: str, recipe: Recipe, source: pa.Table, metadata: dict[str, Any]) -> None:
    """Write source and plan into a claimed dataset, once; a racing build of equal input is no harm.

    Raises:
        UsageError: no usable image is left to plan.
        DatasetError: another build froze other images there meanwhile.
    """
    judged = judge(source, recipe)
    plan, unit_ids = cut_units(judged, recipe)
    if not unit_ids:
        why = _why_none(judged, metadata)
        if judged.num_rows > _SHOWN:
            uri = storage.join(dataset, UNUSABLE)
            storage.write_atomic(uri, tables.to_parquet(judged))
            why += f"\n  all of them: {uri}"
        raise UsageError(why)
    metadata = {**metadata, "captions": count_captions(judged)}
    _create_same(dataset, layout.SOURCE, judged, metadata)
    size = recipe.samples_per_unit
    _create_same(dataset, layout.PLAN, plan, {"unit_ids": unit_ids}, row_group_size=size)


def _why_none(judged: pa.Table, metadata: Mapping[str, Any]) -> str:
    """Say why no image is usable: counts, and the first few of them with their reasons."""
    if not judged.num_rows:
        why = "no image is in what was given"
    else:
        found = counted(tables.count_values(judged["status"]))
        why = f"none of {judged.num_rows:,} images is usable: {found}"
    for row in judged.slice(0, _SHOWN).to_pylist():
        measured = [f"{row[name]:g}" for name in ("value", "threshold") if row[name] is not None]
        told = [" / ".join(measured), row["against"], row["detail"]]
        why += f"\n  {row['uri']}: {', '.join([row['status'], *filter(None, told)])}"
    ignored = metadata.get("ignored")
    return f"{why}\n  passed over: {counted(ignored)}" if ignored else why


def _create_same(
    dataset: str,
    name: str,
    table: pa.Table,
    metadata: dict[str, Any],
    *,
    row_group_size: int = tables.GROUP,
) -> None:
    try:
        tables.create_parquet(
            storage.join(dataset, name), table, metadata, row_group_size=row_group_size
        )
    except FileExistsError:
        raise DatasetError(
            f"{dataset} was planned from other images: its {name} differs from this scan. "
            "A dataset's plan is frozen; choose another --out for other images."
        ) from None


def _differences(theirs: Any, ours: Any, path: str = "") -> list[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        names = sorted(theirs.keys() | ours.keys())
        pairs = ((f"{path}.{n}".strip("."), theirs.get(n), ours.get(n)) for n in names)
        return [line for name, a, b in pairs for line in _differences(a, b, name)]
    return [] if theirs == ours else [f"{path} ({theirs!r} there, {ours!r} here)"]
