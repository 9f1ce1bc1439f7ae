"""What was taken down: create-once lists of keys that no view shows any more.

``tombstones/<hash>.json`` holds the sorted keys of one removal and is named by its content, so a
removal that is repeated changes nothing, and two at once do not lose each other's. A list is never
changed or deleted; `catalog.dataset.compact` rewrites the shards, the lists stay.
"""

import json
import re
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from catalog import storage
from catalog.errors import DatasetError
from catalog.sample import canonical_json, sample_key, sha256_hex

TOMBSTONES = "tombstones"

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
    for name in storage.list_names(storage.join(dataset, TOMBSTONES)):
        if name.startswith(".") or not name.endswith(".json"):
            continue  # what a killed writer left
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
