"""What converted checkpoints are kept in: safetensors that say what they were made from.

The same tensors give the same bytes, and a file holds a digest of its own tensors: damage shows,
and a folder of checkpoints can be carried and checked without the originals.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Header: TypeAlias = dict[str, Any]

_LENGTH_BYTES = 8  # the header's length comes first, little-endian
_LARGEST_HEADER = 100_000_000  # bytes, the limit of safetensors itself
_CHUNK = 1 << 20
_METADATA = "__metadata__"


def write(path: Path, arrays: Mapping[str, np.ndarray], made_from: Mapping[str, str]) -> None:
    """Write tensors; `made_from` goes into the header."""
    from safetensors.numpy import save

    # asarray and not ascontiguousarray, which makes a counter's shape () into (1,)
    blob = memoryview(save({name: np.asarray(array, order="C") for name, array in arrays.items()}))
    start = _LENGTH_BYTES + int.from_bytes(blob[:_LENGTH_BYTES], "little")
    entries: Header = json.loads(bytes(blob[_LENGTH_BYTES:start]))
    digest = _digest(entries, iter([blob[start:]]))
    # transformers takes no file that does not say its format
    metadata = {**made_from, "format": "pt", "digest": digest}
    header = _canonical({**entries, _METADATA: metadata})
    header += b" " * (-len(header) % 8)  # the tensors start aligned
    with path.open("wb") as file:
        file.write(len(header).to_bytes(_LENGTH_BYTES, "little"))
        file.write(header)
        file.write(blob[start:])


def fault(path: Path, made_from: Mapping[str, str], *, whole: bool) -> str | None:
    """Return what is wrong with a file, or None.

    Args:
        path: the file.
        made_from: what its header must say.
        whole: re-hash the tensors; without it only the header and the size are looked at.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        try:
            header: Header = json.loads(file.read(min(length, _LARGEST_HEADER)))
            metadata: dict[str, str] = header.pop(_METADATA, {})
            end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError):
            return "its header is no safetensors header"
        for key, value in made_from.items():
            if metadata.get(key) != value:
                return f"its {key} is {metadata.get(key)}, expected {value}"
        size, expected = path.stat().st_size, _LENGTH_BYTES + length + end
        if size != expected:
            return f"it has {size:,} bytes, expected {expected:,}"
        if whole and _digest(header, iter(lambda: file.read(_CHUNK), b"")) != metadata.get(
            "digest"
        ):
            return "its tensors are damaged"
    return None


def _digest(entries: Header, data: Iterator[bytes | memoryview]) -> str:
    digest = hashlib.sha256(_canonical(entries))
    for chunk in data:
        digest.update(chunk)
    return digest.hexdigest()


def _canonical(record: Header) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
