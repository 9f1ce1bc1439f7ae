"""What was taken down: create-once lists of keys that no view shows any more.

``tombstones/<hash>.json`` holds the sorted keys of one removal and is named by its content, so a
removal that is repeated changes nothing, and two at once do not lose each other's. A list is never
changed or deleted; `catalog.dataset.compact` rewrites the shards, the lists stay. A dataset that is
made from another takes its lists over, so what was taken down there does not come back here.
"""

import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catalog import storage
from catalog.errors import DatasetError
from catalog.sample import REMOVED, canonical_json, sample_key, sha256_hex

TOMBSTONES = "tombstones"

_TEXTS = ("caption", "label", "label_sha256", "popularity", "scores", "detail")
_VERDICT = ("value", "threshold", "against")
_HASH = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}")


def parse_keys(text: str) -> set[str]:
    """Read keys (32 hex characters) or images' sha256s (64), one a line; blank lines are no harm.

    Raises:
        DatasetError: a line is neither; it names the line's number.
    """
    keys = set()
    for number, line in enumerate(text.splitlines(), start=1):
        word = line.strip().lower()
        if word and not _HASH.fullmatch(word):
            raise DatasetError(
                f"line {number}: {line[:80]!r} is no key of 32 hex characters and no sha256 of 64; "
                "`ls DATASET` shows the keys"
            )
        if word:
            keys.add(sample_key(word))
    return keys


def bury(dataset: str, keys: Iterable[str]) -> bool:
    """Write the tombstones of `keys`; return False where exactly this removal was written before.

    Keys that the dataset does not hold are recorded too, so that what comes later stays out.
    """
    data = canonical_json({"keys": sorted(keys)}) + b"\n"
    uri = storage.join(dataset, TOMBSTONES, f"{sha256_hex(data)[:32]}.json")
    try:
        storage.create_once(uri, data)
    except FileExistsError:
        return False
    return True


def removed_keys(dataset: str) -> set[str]:
    """Return the keys of everything that was taken down.

    Raises:
        DatasetError: a list is damaged; nothing is shown until it is mended.
    """
    keys: set[str] = set()
    for name in _lists(dataset):
        uri = storage.join(dataset, TOMBSTONES, name)
        try:
            keys.update(json.loads(storage.read_bytes(uri))["keys"])
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{uri} is no list of removed keys: {error}") from error
    return keys


def is_removed(sha256s: pa.ChunkedArray, keys: set[str]) -> pa.ChunkedArray:
    """Return for each key or sha256 whether it was taken down."""
    stems = pc.utf8_slice_codeunits(sha256s, 0, len(sample_key("0" * 64)))
    return pc.is_in(stems, pa.array(sorted(keys), pa.string()))


def take_over(dataset: str, other: str) -> None:
    """Write the tombstones of another dataset into this one too; again is no harm."""
    for name in _lists(other):
        data = storage.read_bytes(storage.join(other, TOMBSTONES, name))
        with suppress(FileExistsError):
            storage.create_once(storage.join(dataset, TOMBSTONES, name), data)


def mark_removed(table: pa.Table, keys: set[str]) -> pa.Table:
    """Give the rows of what was taken down the status ``removed``, without texts and verdict.

    Args:
        table: with a column ``sha256``; a source.parquet.
        keys: what `removed_keys` returns.

    Returns:
        The table; where an image lay, its hashes and its rank stay, as the units are named by them.
    """
    table = blank_texts(table, keys, also=_VERDICT)
    gone = _gone(table, keys)
    at = table.schema.get_field_index("status")
    said = pc.if_else(gone, REMOVED, table["status"])
    return table.set_column(at, table.schema.field(at), said)


def removed_row(sha256: str, status: str = REMOVED) -> dict[str, Any]:
    """Return the only row that a unit keeps of an image that was taken down, or dropped."""
    return {"key": sample_key(sha256), "sha256": sha256, "status": status}


def with_removed(records: Sequence[dict[str, Any]], sha256s: Sequence[str]) -> list[dict[str, Any]]:
    """Return a unit's rows in the order of its images, with a row for each that lacks one."""
    made = {record["sha256"]: record for record in records}
    return [made.get(sha256) or removed_row(sha256) for sha256 in sha256s]


def blank_texts(table: pa.Table, keys: set[str], *, also: Iterable[str] = ()) -> pa.Table:
    """Blank what a source or plan says of removed images; where they lay and their hashes stay."""
    gone = _gone(table, keys)
    for name in (*_TEXTS, *also):
        if name in table.schema.names:
            at, field = table.schema.get_field_index(name), table.schema.field(name)
            empty = pa.scalar(None, field.type)
            table = table.set_column(at, field, pc.if_else(gone, empty, table[name]))
    return table


def _gone(table: pa.Table, keys: set[str]) -> pa.ChunkedArray:
    return pc.fill_null(is_removed(table["sha256"], keys), False)


def _lists(dataset: str) -> list[str]:
    """Return the names of the lists; what a killed writer left is none."""
    names = storage.list_names(storage.join(dataset, TOMBSTONES))
    return [name for name in names if name.endswith(".json") and not name.startswith(".")]
