"""What a base's locked networks make of the samples, kept beside the shards.

latents/<name>/identity.json                      what it was made by; <name> is a hash of it
latents/<name>/<index>-<unit>-<hash>.safetensors  the arrays of a unit, which any reader can open
latents/<name>/commits/<unit_id>.json             the truth, as for the shards
latents/<name>/index.parquet                      folded from the commits: where each array lies

Its arrays: ``latents/<key>`` is the mean and the log-variance of the image's latent, stacked;
``mirrored/<key>`` that of the mirrored image; ``text/<hash>`` the embedding of a caption. Each is
read by its offset and checked by its own hash. ``pooled/<hash>`` is the second embedding of a
caption, where a base has one (SDXL).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from safetensors.numpy import save

from catalog import storage, tables
from catalog.dataset.commits import COMMITS, Commit, StoredFile
from catalog.errors import CorruptSampleError, DatasetError
from catalog.sample import canonical_json, sha256_hex

LATENTS = "latents"

Precision = Literal["fp32", "fp16", "bf16"]
Stored = Literal["fp32", "fp16"]

_IDENTITY = "identity.json"
_INDEX = "index.parquet"
_FORMAT = 1
_READERS = 16
_DTYPES: dict[Stored, Any] = {"fp32": np.dtype("<f4"), "fp16": np.dtype("<f2")}

_ROWS = pa.schema(
    [
        pa.field("name", pa.uint64()),  # the first 8 bytes of the sha256 of the array's name
        pa.field("file", pa.int32()),  # which of the files that the metadata lists
        pa.field("offset", pa.int64()),  # bytes into it
        pa.field("length", pa.int64()),
        pa.field("height", pa.int32()),  # of the array's last two axes
        pa.field("width", pa.int32()),
        pa.field("sha256", pa.binary(32)),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What makes latents the ones they are; two that are equal give equal losses.

    Attributes:
        vae: hex sha256 of the autoencoder's weights.
        text_encoder: hex sha256 of the text encoder's; None where captions are left out.
        precision: type of numbers that the networks computed in.
        stored: type of the numbers on disk.
        mirrored: whether mirrored images have theirs, too.
    """

    vae: str
    text_encoder: str | None
    precision: Precision
    stored: Stored
    mirrored: bool

    @property
    def name(self) -> str:
        """Name of the folder below ``latents/``: 16 hex characters."""
        return sha256_hex(self.to_json())[:16]

    def to_json(self) -> bytes:
        """Return the one spelling of it."""
        return canonical_json({"format": _FORMAT, **asdict(self)}) + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitLatents:
    """A unit whose arrays are committed.

    Attributes:
        unit_id: of the unit.
        index: its place in the plan.
        shard: sha256 of the tar that the images came from; another tar makes it stale.
        file: the arrays, a file below the folder.
        images: how many there are.
    """

    unit_id: str
    index: int
    shard: str
    file: StoredFile
    images: int

    def to_json(self) -> bytes:
        """Return the one spelling of it."""
        return canonical_json(asdict(self)) + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> "UnitLatents":
        """Read a commit; raises DatasetError where `data` is none."""
        try:
            raw: dict[str, Any] = json.loads(data)
            return cls(**{**raw, "file": StoredFile(**raw["file"])})
        except (ValueError, TypeError, KeyError) as error:
            raise DatasetError(f"not a commit of latents: {error}") from error


def image_name(key: str, *, mirrored: bool = False) -> str:
    """Return the name of a sample's latent."""
    return f"{'mirrored' if mirrored else 'latents'}/{key}"


def text_name(caption: str) -> str:
    """Return the name of a caption's embedding."""
    return f"text/{sha256_hex(caption.encode())[:32]}"


def pooled_name(caption: str) -> str:
    """Return the name of a caption's pooled embedding."""
    return f"pooled/{sha256_hex(caption.encode())[:32]}"


class LatentsFolder:
    """One folder of latents of a dataset: written unit by unit, then folded.

    Args:
        dataset: URI of the dataset.
        identity: what they are made by.
    """

    def __init__(self, dataset: str, identity: Identity) -> None:
        self.identity = identity
        self.uri = storage.join(dataset, LATENTS, identity.name)

    def claim(self) -> None:
        """Write down what the folder is made by, unless it stands there."""
        with suppress(FileExistsError):
            storage.create_once(storage.join(self.uri, _IDENTITY), self.identity.to_json())

    def committed(self, units: Iterable[Commit]) -> list[UnitLatents]:
        """Return what is committed of these units, in their order; what is stale is left out."""
        wanted = list(units)
        names = set(storage.list_names(storage.join(self.uri, COMMITS)))
        here = [unit for unit in wanted if f"{unit.unit_id}.json" in names]
        with ThreadPoolExecutor(_READERS) as pool:
            found = list(pool.map(lambda unit: self._commit(unit.unit_id), here))
        pairs = zip(here, found, strict=True)
        return [one for unit, one in pairs if one.shard == unit.shard.sha256]

    def commit(
        self, unit: Commit, arrays: Mapping[str, Float[np.ndarray, "..."]], images: int
    ) -> UnitLatents:
        """Write a unit's arrays and commit them; what was committed of the same tar stays.

        Args:
            unit: of the dataset.
            arrays: by name; of 2 axes or more.
            images: how many they are of.
        """
        data = _pack(arrays, _DTYPES[self.identity.stored])
        digest = sha256_hex(data)
        name = f"{unit.index:06d}-{unit.unit_id[:8]}-{digest[:16]}.safetensors"
        made = UnitLatents(
            unit_id=unit.unit_id,
            index=unit.index,
            shard=unit.shard.sha256,
            file=StoredFile(name=name, bytes=len(data), sha256=digest),
            images=images,
        )
        storage.write_atomic(storage.join(self.uri, name), data)  # its name tells its bytes
        uri = storage.join(self.uri, COMMITS, f"{unit.unit_id}.json")
        try:
            storage.create_once(uri, made.to_json())
        except FileExistsError:
            held = self._commit(unit.unit_id)
            if held.shard == made.shard:
                if held.file.name != name:
                    storage.remove(storage.join(self.uri, name))
                return held
            storage.write_atomic(uri, made.to_json())
        return made

    def fold(self, units: Iterable[Commit]) -> "Latents":
        """Write anew where each array of what is committed lies; return it opened."""
        done = self.committed(units)
        with ThreadPoolExecutor(_READERS) as pool:
            read = pool.map(lambda one: _headers(storage.join(self.uri, one.file.name)), done)
            parts = [
                rows.append_column("file", pa.array([at] * rows.num_rows, pa.int32()))
                for at, rows in enumerate(read)
            ]
        empty = _ROWS.empty_table()
        table = pa.concat_tables([empty, *(part.select(_ROWS.names) for part in parts)])
        table = table.sort_by("name")
        names = table["name"].to_numpy()
        table = table.filter(pa.array(np.diff(names, prepend=names[:1] + 1) != 0))  # "" of each
        files = [one.file.name for one in done]
        data = tables.to_parquet(table, {"files": files})
        storage.write_atomic(storage.join(self.uri, _INDEX), data)
        return Latents(self.uri, self.identity, files, table)

    def faults(self, *, quick: bool = False) -> list[str]:
        """Re-hash every committed file; return what is wrong, a line each.

        Args:
            quick: look at the files' sizes alone.
        """
        names = storage.list_names(storage.join(self.uri, COMMITS))
        with ThreadPoolExecutor(_READERS) as pool:
            found = pool.map(lambda name: self._fault(name.removesuffix(".json"), quick), names)
            return [fault for fault in found if fault is not None]

    def _fault(self, unit_id: str, quick: bool) -> str | None:
        file = self._commit(unit_id).file
        fault = file.fault(storage.join(self.uri, file.name), quick=quick)
        return None if fault is None else f"{LATENTS}/{self.identity.name}/{file.name}: {fault}"

    def open(self) -> "Latents | None":
        """Return what is folded; None where nothing is."""
        uri = storage.join(self.uri, _INDEX)
        if not storage.exists(uri):
            return None
        files = tables.read_metadata(uri)["files"]
        return Latents(self.uri, self.identity, files, tables.read_table(uri))

    def _commit(self, unit_id: str) -> UnitLatents:
        uri = storage.join(self.uri, COMMITS, f"{unit_id}.json")
        return UnitLatents.from_json(storage.read_bytes(uri))


class Latents:
    """Arrays of a folder of latents, by name. Picklable; reads by offset."""

    def __init__(self, uri: str, identity: Identity, files: Sequence[str], table: pa.Table) -> None:
        self.identity = identity
        self._uri = uri
        self._files = tuple(files)
        self._columns = {name: table[name].to_numpy() for name in _ROWS.names if name != "sha256"}
        digests = b"".join(table["sha256"].to_pylist())
        self._digests = np.frombuffer(digests, np.uint8).reshape(-1, 32)
        self.pooled = self._place(pooled_name("")) is not None
        """Whether captions have a second embedding; that of "" is in every unit."""

    def lacking(self, keys: Iterable[str]) -> int:
        """Return how many of the samples with these keys have no latents here."""
        kinds = (False, True) if self.identity.mirrored else (False,)
        wanted = [[_number(image_name(key, mirrored=kind)) for kind in kinds] for key in keys]
        numbers = np.array(wanted, dtype=np.uint64).reshape(-1, len(kinds))
        return int((~np.isin(numbers, self._columns["name"])).any(axis=1).sum())

    def array(self, name: str) -> Float[np.ndarray, "c h w"]:
        """Read the array `name`.

        Raises:
            DatasetError: there is none.
            CorruptSampleError: the bytes are not those that were committed.
        """
        at = self._place(name)
        if at is None:
            raise DatasetError(f"{self._uri} has no {name}: run precompute again")
        file, offset, length, height, width = (
            int(self._columns[column][at])
            for column in ("file", "offset", "length", "height", "width")
        )
        uri = storage.join(self._uri, self._files[file])
        data = storage.read_bytes(uri, offset, length)
        if hashlib.sha256(data).digest() != self._digests[at].tobytes():
            raise CorruptSampleError(f"{uri}: the bytes of {name} changed after the commit")
        dtype = _DTYPES[self.identity.stored]
        return np.frombuffer(data, dtype).reshape(-1, height, width)

    def _place(self, name: str) -> int | None:
        """Return the row of an array; None where there is none."""
        number, names = _number(name), self._columns["name"]
        at = int(np.searchsorted(names, np.uint64(number)))
        return at if at < len(names) and int(names[at]) == number else None


def find_latents(dataset: str) -> list[LatentsFolder]:
    """Return the folders of latents that a dataset has, by name."""
    found = []
    for name in storage.list_names(storage.join(dataset, LATENTS)):
        uri = storage.join(dataset, LATENTS, name, _IDENTITY)
        if storage.exists(uri):
            raw = json.loads(storage.read_bytes(uri))
            if raw.pop("format") == _FORMAT:
                found.append(LatentsFolder(dataset, Identity(**raw)))
    return found


def forget_stale(dataset: str, units: Iterable[Commit]) -> int:
    """Delete the latents of units whose tar was rewritten; return how many files went.

    What is left has to be folded anew: `precompute` does, and makes what is missing.
    """
    current, gone = {unit.unit_id: unit.shard.sha256 for unit in units}, 0
    for folder in find_latents(dataset):
        for name in storage.list_names(storage.join(folder.uri, COMMITS)):
            uri = storage.join(folder.uri, COMMITS, name)
            held = UnitLatents.from_json(storage.read_bytes(uri))
            if current.get(held.unit_id) == held.shard:
                continue
            storage.remove(storage.join(folder.uri, _INDEX))
            storage.remove(storage.join(folder.uri, held.file.name))
            storage.remove(uri)
            gone += 1
    return gone


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def _pack(arrays: Mapping[str, Float[np.ndarray, "..."]], dtype: Any) -> bytes:
    """Return a safetensors file; its metadata holds each array's sha256."""
    stored = {name: np.ascontiguousarray(array, dtype=dtype) for name, array in arrays.items()}
    hashes = {name: sha256_hex(array.tobytes()) for name, array in sorted(stored.items())}
    return bytes(save(stored, metadata=hashes))


def _headers(uri: str) -> pa.Table:
    """Return where the arrays of a safetensors file lie, without reading them."""
    size = int.from_bytes(storage.read_bytes(uri, 0, 8), "little")
    header: dict[str, Any] = json.loads(storage.read_bytes(uri, 8, size))
    hashes = header.pop("__metadata__")
    rows = []
    for name, told in header.items():
        start, stop = told["data_offsets"]
        *_, height, width = told["shape"]
        rows.append(
            {
                "name": _number(name),
                "offset": 8 + size + start,
                "length": stop - start,
                "height": height,
                "width": width,
                "sha256": bytes.fromhex(hashes[name]),
            }
        )
    schema = pa.schema([field for field in _ROWS if field.name != "file"])
    return pa.Table.from_pylist(rows, schema=schema)
