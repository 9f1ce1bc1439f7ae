"""Maps of an earlier dataset in place of networks, where they would be the same.

A unit keeps the maps of an image that a threshold rejected beside its shard, so whatever the
networks once made can be judged again: kept, or rejected, by other numbers.
"""

import logging
from dataclasses import dataclass
from functools import cached_property, lru_cache
from sys import intern
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catalog import storage, tables
from catalog.dataset import commits, tombstones
from catalog.dataset.commits import Commit
from catalog.dataset.dataset import Dataset
from catalog.dataset.shards import unpack_maps
from catalog.errors import CatalogError, CorruptSampleError
from catalog.png import decode_png
from catalog.sample import OK, sample_key, sha256_hex
from detectors.base import Annotation
from pipeline.attempts.environment import of_maps
from pipeline.errors import UsageError
from pipeline.recipe.made_by import recipe_of
from pipeline.recipe.recipe import Recipe
from pipeline.unit.key_index import KeyIndex

log = logging.getLogger(__name__)

_UNITS_IN_HAND = 8  # a unit's images lie in few units, as both are cut from one ranking
_COLUMNS = ["key", "status", "offset", "length", "block_sha256", "nsfw"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """What an earlier build made of an image.

    Attributes:
        annotations: maps by condition, with their parameters; of the recipe's, or of some of them.
        scores: of networks that make no map, where the recipe asks for them: ``nsfw``.
        made_in: name of the environment that they were made in.
    """

    annotations: dict[str, Annotation]
    scores: dict[str, float]
    made_in: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unit:
    """What is held of a commit, whose environment alone is kilobytes: names below ``shards/``."""

    rows: str
    shard: str
    held: str
    made_in: str

    @classmethod
    def of(cls, commit: Commit) -> "_Unit":
        return cls(
            rows=commit.rows.name,
            shard=commit.shard.name,
            held=commit.held.name if commit.held else "",
            made_in=intern(of_maps(commit.environment)),
        )


def same_maps(dataset: Dataset, recipe: Recipe) -> frozenset[str]:
    """Return the conditions whose maps in a dataset are those that `recipe` would make."""
    theirs = recipe_of(dataset).map_fingerprints
    return frozenset(
        spec.condition
        for spec in recipe.detectors
        if theirs.get(spec.condition) == recipe.map_fingerprints[spec.condition]
        and dataset.versions.get(spec.condition, 1) == spec.version
    )


class EarlierMaps:
    """The maps of a dataset, by image; reads blocks by offset, from any thread."""

    def __init__(self, uri: str, recipe: Recipe) -> None:
        """Open a dataset of whose maps some are those that `recipe` would make.

        Raises:
            DatasetError: there is no dataset at `uri`.
            UsageError: all its maps are others.
        """
        self._dataset = Dataset.open(uri)
        self._conditions = same_maps(self._dataset, recipe)
        self._rows = lru_cache(_UNITS_IN_HAND)(self._read_rows)
        self._scored = recipe.rules.max_nsfw < 1
        if not self._conditions:
            raise UsageError(
                f"{uri} cannot be reused: all its maps are made in another way; thresholds, rules "
                "and captions may differ, and some detectors or their versions, but not images, "
                "seed, precision or batch size"
            )

    def read(self, sha256: str) -> Earlier | None:
        """Return what was made of an image, or None where a network has to look at it."""
        key = sample_key(sha256)
        row = None if key in self._removed else self._find(key)
        if row is None:
            return None
        try:
            maps, metadata = unpack_maps(self._block(row))
        except (OSError, CatalogError) as error:
            log.warning("made again, not reused: %s: %s", row["key"], error)
            return None
        annotations = {
            name: Annotation(map=decode_png(data), parameters=_parameters(metadata, name))
            for name, data in maps.items()
            if name in self._conditions
        }
        scores = {"nsfw": row["nsfw"]} if self._scored and row["nsfw"] is not None else {}
        if not annotations and not scores:
            return None
        return Earlier(annotations=annotations, scores=scores, made_in=row["made_in"])

    def _block(self, row: dict[str, Any]) -> bytes:
        uri = self._dataset.path(commits.SHARDS, row["file"])
        block = storage.read_bytes(uri, row["offset"], row["length"])
        if sha256_hex(block) != row["block_sha256"]:
            raise CorruptSampleError(f"{row['file']}: the bytes have changed after the commit")
        return block

    def _find(self, key: str) -> dict[str, Any] | None:
        for number in self._index.files_of(key):
            rows = self._rows(number)
            at = pc.index(rows["key"], key).as_py()
            if at >= 0:
                row: dict[str, Any] = rows.slice(at, 1).to_pylist()[0]
                return row
        return None

    @cached_property
    def _removed(self) -> set[str]:
        return tombstones.removed_keys(self._dataset.uri)

    @cached_property
    def _units(self) -> list[_Unit]:
        return [_Unit.of(commit) for commit in commits.read_commits(self._dataset.uri)]

    @cached_property
    def _index(self) -> KeyIndex:
        names = [unit.rows for unit in self._units]
        return KeyIndex.read([self._dataset.path(commits.SHARDS, name) for name in names], "key")

    def _read_rows(self, number: int) -> pa.Table:
        return _rows_of(self._dataset, self._units[number])


def _rows_of(dataset: Dataset, unit: _Unit) -> pa.Table:
    """Return the rows of a unit whose maps are stored, with their file and their environment."""
    rows = tables.read_table(dataset.path(commits.SHARDS, unit.rows), _COLUMNS)
    statuses = rows["status"].to_pylist()
    files = [unit.shard if status == OK else unit.held for status in statuses]
    rows = rows.replace_schema_metadata(None).append_column("file", pa.array(files, pa.string()))
    made_in = pa.array([unit.made_in] * rows.num_rows, pa.string())
    rows = rows.append_column("made_in", made_in)
    return rows.filter(rows["offset"].is_valid()).drop_columns(["status"])


def _parameters(metadata: dict[str, Any], condition: str) -> dict[str, Any]:
    kept = metadata["conditions"][condition]
    return {name: value for name, value in kept.items() if name != "sha256"}
