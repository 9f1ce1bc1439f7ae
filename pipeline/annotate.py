"""The unit of work: decode threads, batched detectors, encode threads, one tar, one commit.

Runs the same in-process and inside a Ray actor; knows neither.
"""

import platform
import shutil
import tempfile
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import cv2
import PIL
import pyarrow as pa
from PIL import features

from catalog import storage, tables
from catalog.commits import Attempt, Outcome, commit_unit, read_commit
from catalog.dataset import PLAN
from catalog.errors import CatalogError, ImageError
from catalog.images import Image, decode, encode_jpeg, encode_png, fit, target_size
from catalog.sample import (
    OK,
    Rejection,
    Sample,
    canonical_json,
    failed,
    rejected,
    sample_key,
    sha256_hex,
)
from catalog.shards import ShardWriter, pack
from catalog.sources import read_image
from detectors.base import Annotation, Detector, Refusal, Result, generator_for
from pipeline.recipe import Recipe

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = (
    4  # finished images waiting for each thread: enough to stay busy, few enough to bound memory
)
_PRECISION = "fp32"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitReport:
    """What became of one call for a unit.

    Attributes:
        index: of the unit in the plan.
        unit_id: 32 hex characters.
        outcome: ``committed``, or what an earlier attempt's commit made of this one.
        counts: images by status.
        seconds: wall time of the whole call.
    """

    index: int
    unit_id: str
    outcome: Outcome
    counts: dict[str, int]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """An image on its way through a unit; a rejection ends the way."""

    row: Mapping[str, Any]
    pixels: Image | None = None
    size: tuple[int, int] = (0, 0)  # width, height as stored
    original: bytes | None = None  # stored as they are: an upright RGB JPEG of the final size
    jpeg_scale: int = 1
    annotations: dict[str, Annotation] = field(default_factory=dict)
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    caption: str = ""
    rejection: Rejection | None = None
    block: bytes = b""


class SourceChanged(CatalogError):
    """An image's bytes are not those that the scan hashed."""


class UnitWorker:
    """Holds a recipe's loaded detectors and turns units of one dataset into commits."""

    def __init__(self, dataset: str, recipe: Recipe, *, threads: int, device: str = "cpu") -> None:
        cv2.setNumThreads(1)  # threads of ours run beside each other; a library's own would compete
        self._dataset = dataset
        self._recipe = recipe
        self._threads = threads
        self._environment = environment(device)
        self._detectors: dict[str, Detector] = {
            spec.condition: spec.load(device) for spec in recipe.detectors
        }
        self._captioner = recipe.captions.load(device)

    @cached_property
    def _plan(self) -> Any:
        return tables.open_parquet(storage.join(self._dataset, PLAN))

    @cached_property
    def _unit_ids(self) -> list[str]:
        return list(tables.read_metadata(storage.join(self._dataset, PLAN))["unit_ids"])

    def run(self, index: int) -> UnitReport:
        """Annotate and commit one unit; what a single image does wrong becomes its row.

        Raises:
            DeterminismError: an equal attempt gave other bytes.
            OSError: the dataset's storage cannot be written.
        """
        start = time.perf_counter()
        unit = self._unit_ids[index]
        folder = _attempt_folder(self._dataset, unit)
        try:
            attempt = self.attempt(index, folder)
            commit, outcome = commit_unit(self._dataset, attempt)
        except FileNotFoundError:
            existing = read_commit(self._dataset, unit)
            if existing is None:
                raise
            commit, outcome = existing, "same"  # another build finished and swept our folder away
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        seconds = time.perf_counter() - start
        return UnitReport(
            index=index, unit_id=unit, outcome=outcome, counts=commit.counts, seconds=seconds
        )

    def attempt(self, index: int, folder: Path) -> Attempt:
        """Annotate one unit into `folder` without committing it."""
        rows = self._plan.read_row_group(index).to_pylist()
        unit = self._unit_ids[index]
        tar, parquet = (
            folder / f"{index:06d}-{unit[:8]}.tar",
            folder / f"{index:06d}-{unit[:8]}.parquet",
        )
        records: list[dict[str, Any]] = []
        with tar.open("xb") as file:
            writer = ShardWriter(file)
            records.extend(_record(work, writer) for work in self._process(rows))
            writer.close()
            storage.sync_file(file)
        table = pa.Table.from_pylist(records, schema=tables.ROWS)
        with parquet.open("xb") as file:
            file.write(tables.to_parquet(table))
            storage.sync_file(file)
        return Attempt(
            unit_id=unit,
            index=index,
            fingerprint=self._recipe.fingerprint,
            tar=tar,
            rows=parquet,
            counts=dict(sorted(Counter(record["status"] for record in records).items())),
            environment=self._environment,
        )

    def _process(self, rows: list[dict[str, Any]]) -> Iterator[_Work]:
        """Yield the images of a unit in order; batches are cut by place, so they never vary."""
        ahead = self._threads * _AHEAD
        with ThreadPoolExecutor(self._threads) as pool:
            loaded = _map_ahead(pool, self._load, rows, ahead)
            annotated = (
                work
                for batch in _chunks(loaded, self._recipe.batch_size)
                for work in self._annotate(batch)
            )
            yield from _map_ahead(pool, self._pack, annotated, ahead)

    def _load(self, row: dict[str, Any]) -> _Work:
        options = self._recipe.image
        try:
            data = read_image(row)
            if sha256_hex(data) != row["sha256"]:
                raise SourceChanged(f"{row['uri']} changed after it was scanned")
            decoded = decode(data, at_least=options.resolution if options.reduced_decode else None)
            pixels = fit(decoded.pixels, resolution=options.resolution, crop=options.crop)
        except ImageError as error:
            rejection = rejected(error.rule, value=error.value, detail=str(error))
            return _Work(row=row, rejection=rejection)
        except Exception as error:  # one image must not end the unit; its row names the class
            return _Work(row=row, rejection=failed(error))
        size = target_size(
            row["width"], row["height"], resolution=options.resolution, crop=options.crop
        )
        keeps = decoded.header.plain and size == (row["width"], row["height"])
        return _Work(
            row=row,
            pixels=pixels,
            size=size,
            original=data if keeps and options.format == "jpg" else None,
            jpeg_scale=decoded.jpeg_scale,
        )

    def _annotate(self, batch: list[_Work]) -> list[_Work]:
        for condition, detector in self._detectors.items():
            batch = self._detect(batch, condition, detector)
        usable = [work for work in batch if work.rejection is None]
        pixels = [work.pixels for work in usable if work.pixels is not None]
        captions = self._captioner(pixels, [work.row["caption"] for work in usable])
        named = iter([_captioned(*pair) for pair in zip(usable, captions, strict=True)])
        return [next(named) if work.rejection is None else work for work in batch]

    def _detect(self, batch: list[_Work], condition: str, detector: Detector) -> list[_Work]:
        usable = [work for work in batch if work.rejection is None]
        found: Iterator[Result | Rejection]
        try:
            found = iter(self._call(detector, condition, usable))
        except Exception:  # find the image that the batch fails on: each alone, the others go on
            found = (self._call_alone(detector, condition, work) for work in usable)
        return [
            _with_result(work, condition, next(found)) if work.rejection is None else work
            for work in batch
        ]

    def _call(self, detector: Detector, condition: str, works: list[_Work]) -> list[Result]:
        seed = self._recipe.seed
        pixels = [work.pixels for work in works if work.pixels is not None]
        draws = [generator_for(work.row["sha256"], condition, seed) for work in works]
        return detector(pixels, draws) if works else []

    def _call_alone(self, detector: Detector, condition: str, work: _Work) -> Result | Rejection:
        try:
            return self._call(detector, condition, [work])[0]
        except Exception as error:  # recorded as failed:<class>, never as a black map
            return failed(error)

    def _pack(self, work: _Work) -> _Work:
        if work.rejection is not None or work.pixels is None:
            return replace(work, pixels=None)
        block = pack(self._sample(work, work.pixels))
        parameters = {name: found.parameters for name, found in work.annotations.items()}
        # arrays go here: packed samples wait in memory for their turn to be written
        return replace(work, pixels=None, annotations={}, parameters=parameters, block=block)

    def _sample(self, work: _Work, pixels: Image) -> Sample:
        options = self._recipe.image
        if work.original is not None:
            image = work.original
        elif options.format == "jpg":
            image = encode_jpeg(pixels, options.jpeg_quality)
        else:
            image = encode_png(pixels)
        maps = {name: encode_png(result.map) for name, result in work.annotations.items()}
        return Sample(
            key=sample_key(work.row["sha256"]),
            image=image,
            image_format=options.format,
            conditions=maps,
            caption=work.caption,
            metadata=self._metadata(work, image, maps),
        )

    def _metadata(self, work: _Work, image: bytes, maps: dict[str, bytes]) -> dict[str, Any]:
        """Build a sample's json: the same fields in each, as readers infer a schema from a few."""
        row = work.row
        return {
            "key": sample_key(row["sha256"]),
            "sha256": row["sha256"],
            "recipe": self._recipe.fingerprint,
            "width": work.size[0],
            "height": work.size[1],
            "caption": {"text": work.caption, "source": self._recipe.captions.captioner},
            "image": {
                "sha256": sha256_hex(image),
                "stored": "encoded" if work.original is None else "original",
            },
            "source": {
                "width": row["width"],
                "height": row["height"],
                "format": row["format"],
                "jpeg_scale": work.jpeg_scale,
            },
            "conditions": {
                name: {**work.annotations[name].parameters, "sha256": sha256_hex(data)}
                for name, data in maps.items()
            },
        }


def environment(device: str) -> dict[str, str]:
    """Return what besides the recipe can move a bit of the output."""
    return {
        "device": device,
        "libjpeg_turbo": str(features.version_feature("libjpeg_turbo")),
        "machine": platform.machine(),
        "opencv": cv2.__version__,
        "pillow": PIL.__version__,
        "precision": _PRECISION,
        "pyarrow": pa.__version__,
        "threads": "1",  # inside a library's call; fixed above, whatever the worker has beside it
    }


def _with_result(work: _Work, condition: str, result: Result | Rejection) -> _Work:
    if isinstance(result, Rejection):
        return replace(work, rejection=result)
    if isinstance(result, Refusal):
        refusal = rejected(result.rule, value=result.value, threshold=result.threshold)
        return replace(work, rejection=refusal)
    assert work.pixels is not None
    assert result.map.shape[:2] == work.pixels.shape[:2], condition
    return replace(work, annotations={**work.annotations, condition: result})


def _captioned(work: _Work, caption: str | None) -> _Work:
    if caption is None:
        return replace(work, rejection=rejected("caption", detail="no caption beside the image"))
    return replace(work, caption=caption)


def _record(work: _Work, writer: ShardWriter) -> dict[str, Any]:
    """Write the block of a kept sample and return the row of an image, kept or not."""
    row = work.row
    record: dict[str, Any] = {
        "key": sample_key(row["sha256"]),
        "sha256": row["sha256"],
        "source_width": row["width"],
        "source_height": row["height"],
        "popularity": row["popularity"],
    }
    if work.rejection is not None:
        judged = work.rejection
        verdict = {"status": judged.status, "value": judged.value, "threshold": judged.threshold}
        return {**record, **verdict, "detail": judged.detail}
    block = writer.add_block(work.block)
    return {
        **record,
        "status": OK,
        "offset": block.offset,
        "length": block.length,
        "block_sha256": block.sha256,
        "width": work.size[0],
        "height": work.size[1],
        "caption": work.caption,
        "parameters": canonical_json(work.parameters).decode(),
    }


def _attempt_folder(dataset: str, unit: str) -> Path:
    """Make an attempt's folder: beside the shards where those are local, so a link suffices."""
    root = storage.local_path(dataset)
    name = f"{unit}.{uuid.uuid4().hex[:8]}"
    if root is None:
        return Path(tempfile.mkdtemp(prefix=f"{name}."))
    folder = root / "tmp" / name
    folder.mkdir(parents=True)
    return folder


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    chunk: list[T] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], ahead: int
) -> Iterator[R]:
    """Map in order, with at most `ahead` results made before they are asked for."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
