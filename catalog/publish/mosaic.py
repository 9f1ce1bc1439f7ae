"""A view as MDS shards, which MosaicML's streaming reads.

shard.00000.mds, shard.00001.mds, ...    samples in rank order
index.json                               their sizes and columns; written last

Columns: ``caption`` and ``key`` (str), ``image`` (jpeg or png), and a png by each condition's name.
The bytes of pictures and maps are those of the shards. A file of n samples: n as uint32, n + 1
offsets from the file's begin as uint32, the columns as JSON, then the samples, each the sizes of
its columns as uint32 and their bytes. Source: streaming/base/format/mds, version 2.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from catalog.dataset.dataset import View
from catalog.dataset.materialize import require_empty
from catalog.errors import CatalogError
from catalog.sample import Sample
from catalog.storage import write_atomic

_LARGEST = 1 << 30  # bytes of a file; its offsets have 32 bits
_OWN = {"caption", "image", "key"}


def write_mds(view: View, out: Path, *, samples_per_file: int = 1000) -> Iterator[int]:
    """Write a view's samples, verified and in order; yield how many are written after each file.

    Args:
        view: the samples.
        out: an empty or new local folder.
        samples_per_file: at most; fewer where a file would pass 1 GiB.

    Raises:
        CatalogError: `out` holds something already, or a condition has a column's own name.
        CorruptSampleError: a stored sample is not the committed one.
    """
    require_empty(out)
    if taken := _OWN.intersection(view.conditions):
        raise CatalogError(f"a condition cannot be called {', '.join(taken)} here: it is a column")
    out.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Any]] = []
    columns: dict[str, Any] = {}
    held: list[bytes] = []
    size = 0
    for at in range(len(view)):
        sample = view.read(at)
        columns = columns or _columns(sample, view.conditions)
        held.append(_packed(sample, columns["column_names"]))
        size += len(held[-1])
        if len(held) == samples_per_file or size >= _LARGEST or at + 1 == len(view):
            shards.append(_write(out, len(shards), columns, held))
            held, size = [], 0
            yield at + 1
    index = {"version": 2, "shards": shards}
    write_atomic(str(out / "index.json"), json.dumps(index, sort_keys=True).encode())


def _columns(sample: Sample, conditions: tuple[str, ...]) -> dict[str, Any]:
    kinds = {"caption": "str", "key": "str"} | dict.fromkeys(conditions, "png")
    kinds["image"] = "jpeg" if sample.image_format == "jpg" else sample.image_format
    names = sorted(kinds)
    return {
        "column_names": names,
        "column_encodings": [kinds[name] for name in names],
        "column_sizes": [None] * len(names),
        "compression": None,
        "format": "mds",
        "hashes": [],
        "size_limit": None,
        "version": 2,
    }


def _packed(sample: Sample, names: list[str]) -> bytes:
    own = {"caption": sample.caption.encode(), "key": sample.key.encode(), "image": sample.image}
    values = [own.get(name) or sample.conditions.get(name, b"") for name in names]
    return np.array([len(value) for value in values], "<u4").tobytes() + b"".join(values)


def _write(out: Path, number: int, columns: dict[str, Any], held: list[bytes]) -> dict[str, Any]:
    """Write a file, and return its entry in the index."""
    told = json.dumps(columns, sort_keys=True).encode()
    begin = 4 + 4 * (len(held) + 1) + len(told)
    offsets = begin + np.cumsum([0, *map(len, held)])
    parts = [np.uint32(len(held)).tobytes(), offsets.astype("<u4").tobytes(), told, *held]
    data = b"".join(parts)
    name = f"shard.{number:05}.mds"
    write_atomic(str(out / name), data)
    file = {"basename": name, "bytes": len(data), "hashes": {}}
    return {**columns, "raw_data": file, "samples": len(held), "zip_data": None}
