"""Reproducible tar shards: a sample is one contiguous block, and one hash proves its pairing.

The members of a sample follow each other, sorted by name: ``<key>.canny.png``, ``<key>.jpg``,
``<key>.json``, ``<key>.txt``. Owner, mode and time are fixed, so equal samples give equal bytes. A
block's sha256 covers the headers, hence the names: an image, condition or caption that belongs to
another key cannot hide in it.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from catalog.errors import CorruptSampleError
from catalog.sample import Sample, canonical_json, sha256_hex

_RECORD = tarfile.BLOCKSIZE
_END = bytes(2 * _RECORD)
_IMAGE_FORMATS = ("jpg", "png")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Where a sample lies in a shard.

    Attributes:
        offset: bytes from the start of the tar to the sample's first header.
        length: bytes, headers and padding included; a multiple of 512.
        sha256: hex digest of those bytes.
    """

    offset: int
    length: int
    sha256: str


class ShardWriter:
    """Appends samples to a tar; `close` writes the end mark (it does not close the file)."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._offset = 0
        self.blocks = 0
        """How many were added."""

    def add(self, sample: Sample) -> Block:
        """Append one sample and return where it lies."""
        return self.add_block(pack(sample))

    def add_block(self, block: bytes) -> Block:
        """Append a sample that is packed already, byte for byte."""
        self._file.write(block)
        placed = Block(offset=self._offset, length=len(block), sha256=sha256_hex(block))
        self._offset += len(block)
        self.blocks += 1
        return placed

    def close(self) -> None:
        """Write the end-of-archive mark."""
        self._file.write(_END)


def pack(sample: Sample) -> bytes:
    """Return the tar block of a sample: headers, contents and padding of all its members."""
    members = {
        sample.image_format: sample.image,
        "json": canonical_json(sample.metadata),
        "txt": sample.caption.encode("utf-8"),
    }
    members |= {f"{name}.png": data for name, data in sample.conditions.items()}
    return b"".join(_member(f"{sample.key}.{end}", members[end]) for end in sorted(members))


def pack_maps(key: str, conditions: dict[str, bytes], metadata: dict[str, Any]) -> bytes:
    """Return the block of an image that is no sample: the maps that were made of it, and a json."""
    members = {"json": canonical_json(metadata)}
    members |= {f"{name}.png": data for name, data in conditions.items()}
    return b"".join(_member(f"{key}.{end}", members[end]) for end in sorted(members))


def unpack_maps(block: bytes) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the maps by condition, and the json, of a sample or of what `pack_maps` made.

    Raises:
        CorruptSampleError: the block is no whole tar, or its json is none.
    """
    members = {name.partition(".")[2]: data for name, data in _walk(block)}
    try:
        metadata = json.loads(members["json"])
    except (KeyError, ValueError, RecursionError) as error:
        raise CorruptSampleError(f"the json of a block is none: {error}") from error
    maps = {end.removesuffix(".png"): data for end, data in members.items() if end.endswith(".png")}
    return {name: maps[name] for name in metadata["conditions"] if name in maps}, metadata


def unpack(block: bytes) -> Sample:
    """Return the sample that a block holds.

    Raises:
        CorruptSampleError: the block is no whole sample of one key.
    """
    members: dict[str, bytes] = {}
    keys = set()
    for name, data in _walk(block):
        key, _, end = name.partition(".")
        keys.add(key)
        members[end] = data
    image_format = next((end for end in _IMAGE_FORMATS if end in members), None)
    if len(keys) != 1 or image_format is None or not {"json", "txt"} <= members.keys():
        found = sorted(members)
        raise CorruptSampleError(f"block holds keys {sorted(keys)} with {found}, not one sample")
    try:
        caption, metadata = members.pop("txt").decode("utf-8"), json.loads(members.pop("json"))
    except (ValueError, RecursionError) as error:
        raise CorruptSampleError(
            f"{keys}: txt or json of the sample is no text: {error}"
        ) from error
    return Sample(
        key=keys.pop(),
        image=members.pop(image_format),
        image_format=image_format,
        caption=caption,
        metadata=metadata,
        conditions={end.removesuffix(".png"): data for end, data in members.items()},
    )


def _member(name: str, data: bytes) -> bytes:
    header = tarfile.TarInfo(name)  # time, owner and group are 0 and empty, mode 0644 by default
    header.size = len(data)
    return header.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % _RECORD)


def _walk(block: bytes) -> Iterator[tuple[str, bytes]]:
    at = 0
    while at < len(block):
        try:
            header = tarfile.TarInfo.frombuf(block[at : at + _RECORD], "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise CorruptSampleError(f"no tar header at byte {at} of the block: {error}") from error
        start = at + _RECORD
        data = block[start : start + header.size]
        if len(data) != header.size:  # a negative size too
            raise CorruptSampleError(f"member {header.name!r} is cut off at {len(data)} bytes")
        yield header.name, data
        at = start + header.size + (-header.size % _RECORD)
