"""Images to packed samples: decoding, networks in batches, maps, captions, encoding.

Networks and captioner run in batches on the caller's thread and device; decoding, the maps' last
steps and encoding run in threads beside them, a few images ahead. Two callers may each annotate a
unit at once: they share the threads and take turns on the device, so that one unit's first images
are decoded, and another's last are encoded, while it works.

Images come out in the order in which they went in, each as a sample or as a rejection.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from captioning.base import Caption
from captioning.base import Network as CaptioningNetwork
from catalog.errors import CatalogError, ImageError, StorageUnavailable
from catalog.images import Image, decode, encode_jpeg, encode_png, fit, target_size
from catalog.labels import fit_label, read_label
from catalog.quality import check_jpeg, measure
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
from catalog.shards import Block, pack, pack_maps
from catalog.sources import read_image
from detectors.base import Annotation, Result, Spec, generator_for, judged
from detectors.graph import Findings, Graph, annotate
from detectors.nsfw import NsfwNetwork
from pipeline.caption_cache import Text
from pipeline.captions import UnitTexts
from pipeline.image_rules import covered, first_rejection, judge_pixels, with_coverage
from pipeline.recipe import Recipe
from pipeline.reuse import EarlierMaps
from pipeline.stages import Device, StageClock

T = TypeVar("T")
R = TypeVar("R")

# Finished images waiting for each thread: enough to stay busy, few enough to bound memory.
_AHEAD = 4

# Images that wait for one batch of captions, in batches: where few images need one, all others
# would wait with their pixels.
_WAITING = 4

_NO_CAPTION = Caption(text="", source="none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """An image on its way through a unit; a rejection ends the way.

    Attributes:
        row: of the plan.
        pixels: uint8 RGB (h, w, 3) at the final size; gone once the image is packed or rejected.
        label: ground truth at the final size, where the recipe has labels.
        size: (width, height) in pixels, as stored.
        original: the file's bytes where they are stored as they are.
        jpeg_scale: divisor at which a JPEG was decoded.
        annotations: maps by condition; gone once the sample is packed.
        parameters: what each detector drew, by condition.
        prepared: what the captioning network takes of the image, where it must look at it.
        caption: the chosen text, and the others.
        measures: of the image, by the names of `catalog.tables.MEASURES`.
        earlier: maps of another build, in place of the networks' findings.
        rejection: why the image gives no sample.
        block: the packed sample, or the maps of an image that a threshold rejected.
    """

    row: Mapping[str, Any]
    pixels: Image | None = None
    label: np.ndarray | None = None
    size: tuple[int, int] = (0, 0)
    original: bytes | None = None
    jpeg_scale: int = 1
    annotations: dict[str, Annotation] = field(default_factory=dict)
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    prepared: Any = None
    caption: Caption = _NO_CAPTION
    measures: dict[str, float] = field(default_factory=dict)
    earlier: dict[str, Annotation] = field(default_factory=dict)
    rejection: Rejection | None = None
    block: bytes = b""


class SourceChanged(CatalogError):
    """An image's bytes are not those that the scan hashed."""


class ProcessDied(CatalogError):
    """An image ends the process that works on it; see `pipeline.quarantine`."""


class Annotator:
    """A recipe's loaded networks and captioner, with threads to feed them."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        threads: int,
        device: str,
        reuse: str | None = None,
        captions_only: bool = False,
        captioner_later: bool = False,
    ) -> None:
        """Load the networks.

        Args:
            recipe: what is made of an image.
            threads: that decode, draw and encode.
            device: of the networks.
            reuse: URI of a dataset whose maps are taken in place of the networks' findings.
            captions_only: load no detector, for `generate_texts` alone.
            captioner_later: load the captioner when the first image needs it.
        """
        self._recipe = recipe
        self._fingerprint = recipe.fingerprint
        self._ahead = threads * _AHEAD
        self._pool = ThreadPoolExecutor(threads)
        self.device = Device()
        self._graph = Graph(
            () if captions_only else recipe.detectors,
            more=() if captions_only else recipe.networks,
            device=device,
            precision=recipe.precision,
            micro_batch=recipe.batch_size,
        )
        self._earlier = None if reuse is None else EarlierMaps(reuse, recipe)
        self._device_name = device
        self._loading = threading.Lock()
        if recipe.captions.network is not None and not captioner_later:
            self._load_captioner()

    @property
    def micro_batch(self) -> int:
        """Images that a network is given at once; falls when the device runs out of memory."""
        return self._graph.micro_batch

    @property
    def network_images(self) -> int:
        """Images that the networks have looked at."""
        return self._graph.images_run

    def texts(self, known: Mapping[str, Text] = MappingProxyType({})) -> UnitTexts:
        """Return what generates a unit's texts, and keeps them; `known` ones are not generated."""
        return UnitTexts(self._recipe.captions, self._load_captioner, known)

    def generate_texts(
        self,
        rows: list[dict[str, Any]],
        texts: UnitTexts,
        *,
        poison: Mapping[str, str] = MappingProxyType({}),
        clock: StageClock | None = None,
    ) -> None:
        """Generate the texts that a unit's images lack, and annotate nothing."""
        clock = clock or StageClock()
        lacking = [row for row in rows if texts.lacks(row)]
        load = partial(self._load_prepared, texts, poison, clock)
        works = _map_ahead(self._pool, load, lacking, ahead=self._ahead)
        usable = (work for work in works if work.prepared is not None)
        for batch in _chunks(usable, texts.batch_size):
            self._generate({work.row["sha256"]: work.prepared for work in batch}, texts, clock)

    def annotate(
        self,
        rows: list[dict[str, Any]],
        *,
        poison: Mapping[str, str] = MappingProxyType({}),
        clock: StageClock | None = None,
        texts: UnitTexts | None = None,
    ) -> Iterator[Work]:
        """Yield the images of a unit in order; batches are cut by place, so they never vary.

        Args:
            rows: of the plan.
            poison: images not to be touched, as they end the process: sha256 to what was seen.
            clock: is told the time of each stage.
            texts: the unit's generated texts; default none are known yet.
        """
        clock, texts = clock or StageClock(), texts or self.texts()
        ahead, size = partial(_map_ahead, self._pool, ahead=self._ahead), self._recipe.batch_size
        loaded = ahead(partial(self._load, poison, clock), rows)
        found = (pair for batch in _chunks(loaded, size) for pair in self._run(batch, clock))
        detected = ahead(partial(self._detect, texts, clock), found)
        captioned = self._caption(detected, texts, clock)
        yield from ahead(partial(self._pack, clock), captioned)

    @cached_property
    def _captioner(self) -> CaptioningNetwork:
        network = self._recipe.captions.network
        assert network is not None
        return network.load(self._device_name)

    def _load_captioner(self) -> CaptioningNetwork:
        with self._loading:  # two units may come to it at once
            return self._captioner

    def _load_prepared(
        self,
        texts: UnitTexts,
        poison: Mapping[str, str],
        clock: StageClock,
        row: dict[str, Any],
    ) -> Work:
        work = self._load(poison, clock, row)
        return self._prepared(work, texts, clock)

    def _prepared(self, work: Work, texts: UnitTexts, clock: StageClock) -> Work:
        if work.pixels is None or not texts.lacks(work.row):
            return work
        with clock.time("caption"):
            return replace(work, prepared=texts.prepare(work.pixels))

    def _load(self, poison: Mapping[str, str], clock: StageClock, row: dict[str, Any]) -> Work:
        if row["sha256"] in poison:
            return Work(row=row, rejection=failed(ProcessDied(poison[row["sha256"]])))
        with clock.time("decode"):
            return self._decode(row)

    def _decode(self, row: dict[str, Any]) -> Work:
        options = self._recipe.image
        try:
            data = read_image(row)
            if sha256_hex(data) != row["sha256"]:
                raise SourceChanged(f"{row['uri']} changed after it was scanned")
            if self._recipe.rules.damaged_jpeg:
                check_jpeg(data)
            decoded = decode(data, at_least=options.resolution if options.reduced_decode else None)
            measures = asdict(measure(decoded.pixels))
            broken = judge_pixels(measures, self._recipe.rules)
            if broken is not None:
                return Work(row=row, measures=measures, rejection=broken)
            pixels = fit(decoded.pixels, resolution=options.resolution, crop=options.crop)
            label = self._load_label(row)
            earlier = self._earlier.read(row["sha256"]) if self._earlier else None
        except ImageError as error:
            rejection = rejected(error.rule, value=error.value, detail=str(error))
            return Work(row=row, rejection=rejection)
        except StorageUnavailable:
            raise  # says nothing of the image: the unit is tried again
        except Exception as error:  # one image must not end the unit; its row names the class
            return Work(row=row, rejection=failed(error))
        size = target_size(
            row["width"], row["height"], resolution=options.resolution, crop=options.crop
        )
        keeps = decoded.header.plain and size == (row["width"], row["height"])
        return Work(
            row=row,
            pixels=pixels,
            label=label,
            size=size,
            original=data if keeps and options.format == "jpg" else None,
            jpeg_scale=decoded.jpeg_scale,
            measures=measures | (earlier.scores if earlier else {}),
            earlier=earlier.annotations if earlier else {},
        )

    def _load_label(self, row: dict[str, Any]) -> np.ndarray | None:
        if self._recipe.labels is None:
            return None
        options = self._recipe.image
        return fit_label(
            read_label(row["label"], row["label_sha256"]),
            width=row["width"],
            height=row["height"],
            resolution=options.resolution,
            crop=options.crop,
        )

    def _run(self, batch: list[Work], clock: StageClock) -> Iterator[tuple[Work, Findings]]:
        """Run the networks over the images that were decoded and not annotated earlier."""
        if not self._graph.networks:
            return ((work, {}) for work in batch)
        asked = [None if work.earlier else work.pixels for work in batch]
        with self.device.turn(), clock.time("network"):
            findings = iter(self._graph.run([pixels for pixels in asked if pixels is not None]))
        pairs = zip(batch, asked, strict=True)
        return ((work, {} if pixels is None else next(findings)) for work, pixels in pairs)

    def _detect(self, texts: UnitTexts, clock: StageClock, pair: tuple[Work, Findings]) -> Work:
        work, findings = pair
        pixels = work.pixels
        if pixels is None:
            return work
        with clock.time("detect"):
            work = self._draw(work, pixels, findings)
        return self._prepared(work, texts, clock)

    def _draw(self, work: Work, pixels: Image, findings: Findings) -> Work:
        """Make every map of one image; a failure ends its way, and so does a refusal, after all."""
        try:
            work = _with_nsfw(work, findings)
            results = self._results(work, pixels, findings)
            rejection = first_rejection(work.measures, results.values(), self._recipe.rules)
            if rejection is not None:
                return self._hold(work, results, rejection)
        except Exception as error:  # recorded as failed:<class>, never as a black map
            return replace(work, pixels=None, rejection=failed(error))
        made = {name: one for name, one in results.items() if isinstance(one, Annotation)}
        return replace(work, annotations=made)

    def _results(self, work: Work, pixels: Image, findings: Findings) -> dict[str, Result]:
        specs = self._recipe.detectors
        return {spec.condition: self._result(spec, work, pixels, findings) for spec in specs}

    def _result(self, spec: Spec, work: Work, pixels: Image, findings: Findings) -> Result:
        if work.earlier:
            return covered(judged(spec, work.earlier[spec.condition]), self._recipe.rules)
        draws = generator_for(work.row["sha256"], spec.condition, self._recipe.seed)
        result = with_coverage(annotate(spec, pixels, findings, draws, work.label))
        return covered(result, self._recipe.rules)

    def _hold(self, work: Work, results: dict[str, Result], rejection: Rejection) -> Work:
        """End an image's way, and keep what was found: another threshold is then a query.

        What networks made is packed as well, so that it is not made again.
        """
        parameters = {name: result.parameters for name, result in results.items()}
        block = b""
        if self._graph.networks:
            made = {name: one.map for name, one in results.items() if one.map is not None}
            maps = {name: encode_png(drawn) for name, drawn in made.items()}
            block = pack_maps(sample_key(work.row["sha256"]), maps, {"conditions": parameters})
        return replace(
            work, pixels=None, earlier={}, parameters=parameters, rejection=rejection, block=block
        )

    def _caption(
        self, works: Iterable[Work], texts: UnitTexts, clock: StageClock
    ) -> Iterator[Work]:
        """Caption images in order; those that the network must look at fill batches."""
        waiting: list[Work] = []
        unseen = 0
        for work in works:
            waiting.append(work)
            unseen += work.prepared is not None
            if unseen in (0, texts.batch_size) or len(waiting) == _WAITING * texts.batch_size:
                yield from self._named(waiting, texts, clock)
                waiting, unseen = [], 0
        yield from self._named(waiting, texts, clock)

    def _named(self, works: list[Work], texts: UnitTexts, clock: StageClock) -> list[Work]:
        """Generate what is lacking, in one batch, and choose the captions."""
        batch = {work.row["sha256"]: work.prepared for work in works if work.prepared is not None}
        if batch:
            self._generate(batch, texts, clock)
        return [work if work.pixels is None else _captioned(work, texts) for work in works]

    def _generate(self, batch: dict[str, Any], texts: UnitTexts, clock: StageClock) -> None:
        with self.device.turn(), clock.time("caption"):
            texts.generate(batch)

    def _pack(self, clock: StageClock, work: Work) -> Work:
        if work.pixels is None:
            return work
        try:
            with clock.time("encode"):
                block = pack(self._sample(work, work.pixels))
        except Exception as error:  # one image must not end the unit; its row names the class
            return replace(work, pixels=None, annotations={}, rejection=failed(error))
        parameters = {name: found.parameters for name, found in work.annotations.items()}
        # arrays go here: packed samples wait in memory for their turn to be written
        return replace(
            work, pixels=None, annotations={}, earlier={}, parameters=parameters, block=block
        )

    def _sample(self, work: Work, pixels: Image) -> Sample:
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
            caption=work.caption.text,
            metadata=self._metadata(work, image, maps),
        )

    def _metadata(self, work: Work, image: bytes, maps: dict[str, bytes]) -> dict[str, Any]:
        """Build a sample's json: the same fields in each, as readers infer a schema from a few."""
        row = work.row
        return {
            "key": sample_key(row["sha256"]),
            "sha256": row["sha256"],
            "recipe": self._fingerprint,
            "width": work.size[0],
            "height": work.size[1],
            "caption": asdict(work.caption),
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


def ledger_row(work: Work, block: Block | None) -> dict[str, Any]:
    """Return the row of an image, kept (with the place of its block) or not."""
    row = work.row
    record: dict[str, Any] = {
        "key": sample_key(row["sha256"]),
        "sha256": row["sha256"],
        "source_width": row["width"],
        "source_height": row["height"],
        "popularity": row["popularity"],
        **work.measures,
    }
    if work.rejection is not None:
        said = work.rejection
        verdict = {"status": said.status, "value": said.value, "threshold": said.threshold}
        found = {"parameters": canonical_json(work.parameters).decode()} if work.parameters else {}
        return {**record, **verdict, **found, **_placed(block), "detail": said.detail}
    assert block is not None, work.row
    return {
        **record,
        **_placed(block),
        "status": OK,
        "width": work.size[0],
        "height": work.size[1],
        "caption": work.caption.text,
        "parameters": canonical_json(work.parameters).decode(),
    }


def _placed(block: Block | None) -> dict[str, Any]:
    if block is None:
        return {}
    return {"offset": block.offset, "length": block.length, "block_sha256": block.sha256}


def _with_nsfw(work: Work, findings: Findings) -> Work:
    """Take open_nsfw's score where it was asked for; raises what its network raised."""
    score = findings.get(NsfwNetwork())
    if isinstance(score, Exception):
        raise score
    return work if score is None else replace(work, measures=work.measures | {"nsfw": score})


def _captioned(work: Work, texts: UnitTexts) -> Work:
    try:
        caption = texts.choose(work.row)
    except Exception as error:  # the network's, at this image; its row names the class
        return replace(work, pixels=None, prepared=None, rejection=failed(error))
    if caption is None:
        return replace(
            work,
            pixels=None,
            prepared=None,
            parameters={name: found.parameters for name, found in work.annotations.items()},
            rejection=rejected("caption", detail="the caption is empty"),
        )
    return replace(work, prepared=None, caption=caption)


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
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], *, ahead: int
) -> Iterator[R]:
    """Map in order, with at most `ahead` results made before they are asked for."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
