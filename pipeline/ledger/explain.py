"""One image's whole story: where it lay, what was found, which rule or unit it met, where it is."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catalog import storage, tables
from catalog.dataset import commits, tombstones
from catalog.dataset import dataset as layout
from catalog.dataset.dataset import Dataset
from catalog.sample import OK, REMOVED, sample_key
from pipeline.attempts import quarantine
from pipeline.errors import UsageError
from pipeline.ledger.requery import refused_condition
from pipeline.recipe.made_by import recipe_of

PLANNED = "planned"
"""Status of an image whose unit is not committed yet."""

_HASH = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}")
_FOUND = [
    *("uri", "offset", "row", "length", "width", "height", "format", "caption", "label"),
    *("popularity", "scores"),
]
_VERDICT = ["status", "value", "threshold", "detail"]
_PLACE = ["shard", "offset", "length", "width", "height", "caption"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitOutcome:
    """What a unit made of the image.

    Attributes:
        generation: of the plan; 0 for the first.
        index: of the unit in the plan.
        unit_id: 32 hex characters.
        status: None where the unit is not committed.
        value: what the rule measured.
        threshold: what it was judged by.
        condition: whose map was refused; None where no map was.
        detail: one line for a person.
        shard: name of the unit's tar below ``shards/``.
        parameters: what each detector drew or found, by condition.
        measures: of the image, by the names of `catalog.tables.MEASURES`.
    """

    generation: int
    index: int
    unit_id: str
    status: str | None = None
    value: float | None = None
    threshold: float | None = None
    condition: str | None = None
    detail: str | None = None
    shard: str | None = None
    parameters: dict[str, Any] | None = None
    measures: dict[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """All that a dataset knows of one image that its scan found.

    Attributes:
        key: of its sample, whether there is one or not; None where its bytes could not be read.
        sha256: of its bytes, hex.
        source: what the scan found: place, size in bytes and pixels, texts; see `tables.SOURCE`.
        status: what counts: ok, rejected:<rule>, failed:<class>, removed, or `PLANNED`.
        value: what the rule that decided measured.
        threshold: what it was judged by.
        detail: one line for a person.
        against: sha256 of the image that is kept in its place, or the filter's clause.
        units: that held it, in order; the last one counts.
        sample: its rank (None until the manifest is folded) and where it lies: shard, offset and
            length in bytes, size in pixels, caption; None where it gave no sample.
        subsets: names of those it is in.
        removed: whether it was taken down.
        quarantined: why it is set aside; None where it is not.
    """

    key: str | None
    sha256: str | None
    source: dict[str, Any]
    status: str
    value: float | None
    threshold: float | None
    detail: str | None
    against: str | None
    units: list[UnitOutcome]
    sample: dict[str, Any] | None
    subsets: list[str]
    removed: bool
    quarantined: str | None


def find(dataset: Dataset, named: str) -> pa.Table:
    """Return the rows of the source that a name leads to, the planned ones first, in rank order.

    Args:
        dataset: that may be unfinished.
        named: a key, a sha256, a URI or local path, or its end from a slash on; where none of them
            is known, a local file whose bytes are known.

    Raises:
        UsageError: there is none.
    """
    found = _pick(dataset.source, ["uri", "sha256"], _matcher(named))
    path = storage.local_path(named)
    if not found.num_rows and path is not None and path.is_file():
        digest = storage.sha256_file(named)
        found = _pick(dataset.source, ["sha256"], _equal("sha256", digest))
    if not found.num_rows:
        raise UsageError(
            f"no image of {dataset.uri} is {named!r}: give a key, a sha256, a path or URI as the "
            "scan met it, or its end; one inside a .tar or .parquet has that file's path"
        )
    return found


def explain(dataset: Dataset, named: str) -> list[Story]:
    """Tell the story of each image that a name leads to; raises as `find` does."""
    return tell(dataset, find(dataset, named))


def tell(dataset: Dataset, rows: pa.Table) -> list[Story]:
    """Tell the story of each of some rows of a dataset's source."""
    hashes = [sha256 for sha256 in rows["sha256"].to_pylist() if sha256 is not None]
    teller = _Teller(dataset, hashes)
    return [teller.story(row) for row in rows.to_pylist()]


class _Teller:
    """What the tables say of some images, each read once."""

    def __init__(self, dataset: Dataset, sha256s: Sequence[str]) -> None:
        self._dataset = dataset
        self._recipe = recipe_of(dataset)
        self._buried = tombstones.removed_keys(dataset.uri)
        self._aside = quarantine.quarantined(dataset.uri, sha256s)
        hashes, keys = pa.array(sha256s, pa.string()), [sample_key(one) for one in sha256s]
        self._units: dict[str, list[int]] = {}
        for generation in range(len(dataset.plans.names)):
            uri = dataset.plans.path(generation)
            planned = tables.read_where(
                uri, ["sha256", "unit"], lambda rows: pc.is_in(rows["sha256"], hashes)
            )
            for row in planned.to_pylist():
                self._units.setdefault(row["sha256"], []).append(row["unit"])
        wanted = pa.array(keys, pa.string())
        self._ranks = dict(_pairs(dataset.path(layout.MANIFEST), ["key", "rank"], wanted))
        self._subsets = {
            name: _pairs(dataset.path(layout.SUBSETS, f"{name}.parquet"), ["key", "rank"], wanted)
            for name in dataset.subsets()
        }

    def story(self, row: dict[str, Any]) -> Story:
        sha256 = row["sha256"]
        key = None if sha256 is None else sample_key(sha256)
        removed = key in self._buried
        held = row["rank"] is not None  # a duplicate has the hash of the one that was planned
        units, sample = [], None
        for index in self._units.get(sha256, ()) if held else ():
            outcome, made = self._outcome(index, sha256)
            units.append(outcome)
            sample = made if outcome.status == OK and not removed else None
        said = dict.fromkeys(_VERDICT)
        if not held:
            said = {name: row[name] for name in _VERDICT}
        elif units:
            said = {name: getattr(units[-1], name) for name in _VERDICT}
        status = REMOVED if removed else said["status"] or PLANNED
        return Story(
            key=key,
            sha256=sha256,
            source={name: row.get(name) for name in _FOUND}
            | {"scores": dict(row.get("scores") or ())},
            status=status,
            value=said["value"],
            threshold=said["threshold"],
            detail=said["detail"],
            against=row["against"],
            units=units,
            sample=sample,
            subsets=[name for name, held in self._subsets.items() if sample and key in held],
            removed=removed,
            quarantined=self._aside.get(sha256),
        )

    def _outcome(self, index: int, sha256: str) -> tuple[UnitOutcome, dict[str, Any]]:
        """Return what a unit made of an image, and the place of its sample."""
        unit_id = self._dataset.unit_ids[index]
        generation = self._dataset.plans.generation_of(index)
        commit = commits.read_commit(self._dataset.uri, unit_id)
        if commit is None:
            return UnitOutcome(generation=generation, index=index, unit_id=unit_id), {}
        uri = self._dataset.path(commits.SHARDS, commit.rows.name)
        row = _pick(uri, ["sha256"], _equal("sha256", sha256)).to_pylist()[0]
        drawn = None if row["parameters"] is None else json.loads(row["parameters"])
        measures = {field.name: row.get(field.name) for field in tables.MEASURES}
        outcome = UnitOutcome(
            generation=generation,
            index=index,
            unit_id=unit_id,
            **{name: row[name] for name in _VERDICT},
            condition=refused_condition(row["status"], drawn, self._recipe),
            shard=commit.shard.name,
            parameters=drawn,
            measures={name: value for name, value in measures.items() if value is not None},
        )
        row["shard"] = commit.shard.name
        rank = self._ranks.get(row["key"])
        return outcome, {"rank": rank, **{name: row[name] for name in _PLACE}}


def _matcher(named: str) -> Callable[[pa.Table], pa.ChunkedArray]:
    """Return what says which rows of a source a name leads to."""
    if _HASH.fullmatch(named.lower()):
        return lambda rows: pc.starts_with(rows["sha256"], named.lower())
    quoted = storage.file_uri(f"/{named.lstrip('/')}").removeprefix("file://")
    whole = pa.array({named, storage.absolute(named)}, pa.string())

    def matches(rows: pa.Table) -> pa.ChunkedArray:
        ends = pc.or_(
            pc.ends_with(rows["uri"], quoted), pc.ends_with(rows["uri"], f"/{named.lstrip('/')}")
        )
        return pc.or_(ends, pc.is_in(rows["uri"], whole))

    return matches


def _equal(column: str, value: str) -> Callable[[pa.Table], pa.ChunkedArray]:
    return lambda rows: pc.equal(rows[column], value)


def _pick(uri: str, columns: list[str], keep: Callable[[pa.Table], Any]) -> pa.Table:
    """Read whole rows that `keep` masks by some columns; of other row groups no more is read."""
    with tables.open_parquet(uri) as file:
        parts = [file.schema_arrow.empty_table()]
        for at in range(file.num_row_groups):
            mask = pc.fill_null(keep(file.read_row_group(at, columns=columns)), False)
            if pc.any(mask).as_py():
                parts.append(file.read_row_group(at).filter(mask))
    return pa.concat_tables(parts)


def _pairs(uri: str, columns: list[str], keys: pa.Array) -> dict[str, int]:
    """Return a second column by the first, of the rows with some keys; none without a file."""
    if not storage.exists(uri):
        return {}
    rows = tables.read_where(uri, columns, lambda rows: pc.is_in(rows[columns[0]], keys))
    return dict(zip(*(rows[name].to_pylist() for name in columns), strict=True))
