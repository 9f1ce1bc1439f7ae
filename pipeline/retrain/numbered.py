"""Files 000001.json, 000002.json, ... of a folder: each is created once, the highest is the newest.

Of many who create the next number exactly one succeeds, on a local disk and on object storage.
"""

import json
import re
from typing import Any

from catalog import storage

_NAME = re.compile(r"(\d{6,})\.json")


def numbers(folder: str) -> list[int]:
    """Return the numbers of a folder's files, ascending; an absent folder has none."""
    found = map(_NAME.fullmatch, storage.list_names(folder))
    return sorted(int(name[1]) for name in found if name)


def newest(folder: str) -> int:
    """Return the highest number; 0 where there is none."""
    return max(numbers(folder), default=0)


def path(folder: str, number: int, suffix: str = "json") -> str:
    """Return the URI of a number's file."""
    return storage.join(folder, f"{number:06d}.{suffix}")


def read(folder: str, number: int) -> dict[str, Any]:
    """Return what a number's file holds."""
    content: dict[str, Any] = json.loads(storage.read_bytes(path(folder, number)))
    return content


def create(uri: str, data: bytes) -> bool:
    """Write `data` if nothing stands at `uri`; say whether `data` stands there now.

    A storage whose answer was lost is asked again and then refuses what it has done; so `data`
    that nobody else would write tells whose the file is.
    """
    try:
        storage.create_once(uri, data)
    except FileExistsError:
        return storage.read_bytes(uri) == data
    return True
