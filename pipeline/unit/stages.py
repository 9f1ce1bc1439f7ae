"""Images to packed samples: decoding, networks in batches, maps, captions, encoding.

Networks and captioner run in batches on the caller's thread and device; decoding, the maps' last
steps and encoding run in threads beside them, a few images ahead. Two callers may each annotate a
unit at once: they share the threads and take turns on the device, so that one unit's first images
are decoded, and another's last are encoded, while it works.

Images come out in the order in which they went in, each as a sample or as a rejection.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

from captioning.base import Network as CaptioningNetwork
from catalog.errors import CatalogError
from catalog.sample import failed
from catalog.source.parts import reader_of
from detectors.base import NetworkSpec
from detectors.graph import Findings, Graph
from detectors.nsfw import NsfwNetwork
from pipeline.recipe.recipe import Recipe
from pipeline.unit.caption_cache import Text
from pipeline.unit.captions import UnitTexts, captioned
from pipeline.unit.clock import StageClock
from pipeline.unit.device import Device
from pipeline.unit.image_work import Work
from pipeline.unit.load import Loader
from pipeline.unit.maps import MapMaker
from pipeline.unit.pack import Packer
from pipeline.unit.streams import chunks, map_ahead
from pipeline.unit.watch import unwatched

# Finished images waiting for each thread: enough to stay busy, few enough to bound memory.
_AHEAD = 4

# Batches of a network that wait decoded while it works on one, whatever the number of threads.
_BATCHES_AHEAD = 2

# Images that wait for one batch of captions, in batches: where few images need one, all others
# would wait with their pixels.
_WAITING = 4

Read: TypeAlias = Callable[[dict[str, Any]], bytes]


class ProcessDied(CatalogError):
    """An image ends the process that works on it; see `pipeline.attempts.quarantine`."""


class Annotator:
    """A recipe's loaded networks and captioner, with threads to feed them."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        threads: int,
        device: str,
        reuse: str | None = None,
        roots: Sequence[str] = (),
        captions_only: bool = False,
        captioner_later: bool = False,
    ) -> None:
        """Load the networks.

        Args:
            recipe: what is made of an image.
            threads: that decode, draw and encode.
            device: of the networks.
            reuse: URI of a dataset whose maps are taken in place of the networks' findings.
            roots: URIs of the sources, by which a missing file is told from a missing source.
            captions_only: load no detector, for `generate_texts` alone.
            captioner_later: load a captioner that looks at every image only when the first needs
                it, as it always is with one that looks at some.
        """
        self._recipe = recipe
        batches = _BATCHES_AHEAD * recipe.batch_size if recipe.networks else 0
        self._ahead = max(threads * _AHEAD, batches)
        self._pool = ThreadPoolExecutor(threads)
        self.device = Device()
        self._graph = Graph(
            () if captions_only else recipe.detectors,
            more=() if captions_only else recipe.networks,
            device=device,
            precision=recipe.precision,
            micro_batch=recipe.batch_size,
        )
        self._loader = Loader(recipe, reuse, roots)
        self._map_maker = MapMaker(recipe, keeps=bool(self._graph.networks))
        self._packer = Packer(recipe)
        self._device_name = device
        self._loading = threading.Lock()
        self._captioner: CaptioningNetwork | None = None
        if recipe.captions.wants_all and not captioner_later:
            self._load_captioner()

    @property
    def micro_batch(self) -> int:
        """Images that a network is given at once; falls when the device runs out of memory."""
        return self._graph.micro_batch

    @property
    def network_images(self) -> int:
        """Images that the networks have looked at."""
        return self._graph.images_run

    @property
    def caption_tokens(self) -> int:
        """Tokens that a captioning endpoint has counted."""
        return int(getattr(self._captioner, "tokens", 0))

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
        load = partial(self._load_prepared, texts, poison, clock, reader_of(lacking))
        works = map_ahead(self._pool, load, lacking, ahead=self._ahead)
        usable = (work for work in works if work.prepared is not None)
        for batch in chunks(usable, texts.batch_size):
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
        ahead, size = partial(map_ahead, self._pool, ahead=self._ahead), self._recipe.batch_size
        loaded = ahead(partial(self._load, poison, clock, reader_of(rows)), rows)
        found = (pair for batch in chunks(loaded, size) for pair in self._run(batch, clock))
        detected = ahead(partial(self._detect, texts, clock), found)
        captioned = self._caption(detected, texts, clock)
        yield from ahead(partial(self._pack, clock), captioned)

    def _load_captioner(self) -> CaptioningNetwork:
        with self._loading:  # two units may come to it at once
            if self._captioner is None:
                network = self._recipe.captions.network
                assert network is not None
                self._captioner = network.load(self._device_name)
            return self._captioner

    def _load_prepared(
        self,
        texts: UnitTexts,
        poison: Mapping[str, str],
        clock: StageClock,
        read: Read,
        row: dict[str, Any],
    ) -> Work:
        work = self._load(poison, clock, read, row)
        return self._prepared(work, texts, clock)

    def _prepared(self, work: Work, texts: UnitTexts, clock: StageClock) -> Work:
        if work.pixels is None or not texts.lacks(work.row):
            return work
        with clock.time("caption"):
            return replace(work, prepared=texts.prepare(work.pixels))

    def _load(
        self, poison: Mapping[str, str], clock: StageClock, read: Read, row: dict[str, Any]
    ) -> Work:
        if row["sha256"] in poison:
            return Work(row=row, rejection=failed(ProcessDied(poison[row["sha256"]])))
        with clock.time("decode"):
            return self._loader(row, clock.watch, read)

    def _run(self, batch: list[Work], clock: StageClock) -> Iterator[tuple[Work, Findings]]:
        """Run the networks over the images that were decoded, but for what was found earlier."""
        wanted = [self._wanted(work) for work in batch]
        asked = [
            (work, work.pixels, networks)
            for work, networks in zip(batch, wanted, strict=True)
            if work.pixels is not None and networks
        ]
        if not asked:
            return ((work, {}) for work in batch)
        seen = [work.row["sha256"] for work, _, _ in asked]
        with self.device.turn(), clock.time("network"), self._watch(clock, seen):
            found = iter(
                self._graph.run(
                    [pixels for _, pixels, _ in asked], [networks for _, _, networks in asked]
                )
            )
        findings = {work.row["sha256"]: next(found) for work, _, _ in asked}
        return ((work, findings.get(work.row["sha256"], {})) for work in batch)

    def _wanted(self, work: Work) -> frozenset[NetworkSpec]:
        """Return the networks whose findings an image lacks."""
        specs = [spec for spec in self._recipe.detectors if spec.condition not in work.earlier]
        wanted = {spec.network for spec in specs if spec.network is not None}
        scored = {NsfwNetwork()} if "nsfw" not in work.measures else set()
        return frozenset((wanted | scored) & set(self._graph.networks))

    def _detect(self, texts: UnitTexts, clock: StageClock, pair: tuple[Work, Findings]) -> Work:
        work, findings = pair
        if work.pixels is None:
            return work
        with clock.time("detect"), clock.watch([work.row["sha256"]]):
            work = self._map_maker(work, findings)
        return self._prepared(work, texts, clock)

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
        return [work if work.pixels is None else captioned(work, texts) for work in works]

    def _generate(self, batch: dict[str, Any], texts: UnitTexts, clock: StageClock) -> None:
        if not self._recipe.captions.on_device:  # others work meanwhile, and no image hangs here
            with clock.time("caption"):
                texts.generate(batch)
            return
        with self.device.turn(), clock.time("caption"), self._watch(clock, list(batch)):
            texts.generate(batch)

    def _pack(self, clock: StageClock, work: Work) -> Work:
        if work.pixels is None:
            return work
        with clock.time("encode"), clock.watch([work.row["sha256"]]):
            return self._packer(work)

    def _watch(self, clock: StageClock, sha256s: Sequence[str]) -> AbstractContextManager[None]:
        """Watch over networks on a CPU; where a GPU hangs, no image is to blame."""
        return (clock.watch if self._device_name == "cpu" else unwatched)(sha256s)
