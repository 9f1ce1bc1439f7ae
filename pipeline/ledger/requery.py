"""What other thresholds would keep, from the ledger alone: no image is read, no network is run."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catalog import tables
from catalog.dataset import commits, tombstones
from catalog.dataset import dataset as layout
from catalog.dataset.dataset import Dataset
from catalog.lookup import Hashes
from catalog.sample import OK
from catalog.source.quality import Measures
from detectors.keypoints import PoseSpec
from pipeline.errors import UsageError
from pipeline.plan.judge import judge
from pipeline.recipe.made_by import recipe_of
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.yaml_file import load_model
from pipeline.unit.image_rules import broken_rule, refuse_parameters

UNKNOWN = "to be annotated"
"""Status of an image of which the ledger does not say enough: a build has to look at it."""

_PIXELS = [field.name for field in fields(Measures)]
_COLUMNS = ["sha256", "status", "parameters", *_PIXELS, "nsfw"]
_POSES = "rules.keypoints."

_BY_THRESHOLD = frozenset(
    f"rejected:{rule}"
    for rule in ("damaged", "flat", "greyscale", "blur", "nsfw", "keypoints", "lines", "coverage")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a dataset's images, and what would become of them by another recipe.

    Attributes:
        before: images by status, as the dataset is.
        after: images by status, as it would be; of `UNKNOWN` ones the ledger does not say enough.
        added: samples of the other recipe that the dataset has not.
        removed: samples of the dataset that the other recipe would not keep.
    """

    before: dict[str, int]
    after: dict[str, int]
    added: int
    removed: int


def changed_recipe(dataset: Dataset, overrides: Iterable[str]) -> Recipe:
    """Return a dataset's recipe with overrides; ``rules.keypoints.x`` is every pose detector's x.

    Raises:
        RecipeError: an override leads nowhere, or the recipe does not validate with it.
    """
    recipe = recipe_of(dataset)
    poses = [at for at, spec in enumerate(recipe.detectors) if isinstance(spec, PoseSpec)]
    spelled = [
        override.replace(_POSES, f"detectors.{at}.", 1)
        for override in overrides
        for at in (poses if override.startswith(_POSES) and poses else [-1])
    ]
    text = json.dumps(dataset.recipe)
    return load_model(Recipe, text, name=dataset.path(layout.RECIPE), overrides=spelled)


def requery(dataset: Dataset, recipe: Recipe) -> Answer:
    """Judge every image of a finished dataset by another recipe's rules.

    Raises:
        UsageError: the recipes differ in more than rules and thresholds.
    """
    _only_thresholds_differ(recipe_of(dataset), recipe)
    keys = tombstones.removed_keys(dataset.uri)
    source = tables.read_table(dataset.source)
    judged = judge(tombstones.mark_removed(source, keys), recipe)
    good = pc.equal(judged["status"], OK)
    wanted = Hashes(judged["sha256"].filter(good))
    after = Counter(judged["status"].filter(pc.invert(good)).to_pylist())
    expected = pc.sum(good).as_py() or 0
    del source, judged, good
    added = removed = seen = 0
    for unit in _rows_of_units(dataset):
        rows = unit.filter(pc.invert(tombstones.is_removed(unit["sha256"], keys)))
        stays = wanted.has(rows["sha256"])
        removed += pc.sum(pc.equal(rows.filter(pc.invert(stays))["status"], OK)).as_py() or 0
        for row in rows.filter(stays).to_pylist():
            status = status_of(row, recipe)
            after[status] += 1
            added += status == OK != row["status"]
            removed += row["status"] == OK != status
            seen += 1
    if expected > seen:
        after[UNKNOWN] += expected - seen
    state = dataset.status()
    before = {OK: state.samples, **state.rejects}
    return Answer(before=before, after=dict(after), added=added, removed=removed)


def status_of(row: Mapping[str, Any], recipe: Recipe) -> str:
    """Return the status that a row of the ledger would have by `recipe`; `UNKNOWN` included."""
    was = str(row["status"])
    if row["chroma"] is None or was.startswith("failed:"):
        return was  # it could not be decoded, or not be worked on
    broken = broken_rule(row, recipe.rules)
    if broken is not None:
        return broken.status
    if row["parameters"] is None or (recipe.rules.max_nsfw < 1 and row["nsfw"] is None):
        return UNKNOWN
    if recipe.rules.max_nsfw < 1 and row["nsfw"] > recipe.rules.max_nsfw:
        return "rejected:nsfw"
    return _judge_maps(json.loads(row["parameters"]), was, recipe)


def _judge_maps(found: Mapping[str, Any], was: str, recipe: Recipe) -> str:
    """Return the status by the first map that is refused, else by what no threshold changes."""
    for spec in recipe.detectors:
        if "coverage" not in found[spec.condition]:  # no map can be made of this image
            return UNKNOWN if was in _BY_THRESHOLD else was
        refusal = refuse_parameters(spec, found[spec.condition], recipe.rules)
        if refusal is not None:
            return f"rejected:{refusal.rule}"
    return OK if was in _BY_THRESHOLD else was


def refused_condition(status: str, found: Mapping[str, Any] | None, recipe: Recipe) -> str | None:
    """Return the condition whose map had an image rejected; None where none had.

    Args:
        status: of the image.
        found: parameters of each map, by condition.
        recipe: that it was judged by.
    """
    if not found or not status.startswith("rejected:") or status == "rejected:nsfw":
        return None
    for spec in recipe.detectors:
        parameters = found[spec.condition]
        if "coverage" not in parameters or refuse_parameters(spec, parameters, recipe.rules):
            return spec.condition
    return None


def _rows_of_units(dataset: Dataset) -> Iterator[pa.Table]:
    for commit in commits.read_commits(dataset.uri):
        rows = tables.read_table(dataset.path(commits.SHARDS, commit.rows.name), _COLUMNS)
        unit = pa.array([commit.index] * rows.num_rows, pa.int32())
        yield dataset.plans.current(rows.replace_schema_metadata(None).append_column("unit", unit))


def _only_thresholds_differ(theirs: Recipe, ours: Recipe) -> None:
    maps = theirs.map_fingerprints == ours.map_fingerprints
    if not maps or theirs.captions != ours.captions:
        what = "captions" if maps else "how maps are made"
        raise UsageError(f"the ledger cannot tell: --set changes {what}, not a rule or a threshold")
    if theirs.rules.damaged_jpeg != ours.rules.damaged_jpeg:
        raise UsageError("the ledger cannot tell rules.damaged_jpeg: it asks the files themselves")
