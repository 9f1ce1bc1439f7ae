"""Contact sheets: which samples and rejected images are shown, and their thumbnails."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image as PILImage

from catalog import storage, tables
from catalog.dataset.dataset import Dataset, View
from catalog.errors import CatalogError
from catalog.images import decode, resize
from catalog.sample import Sample
from catalog.source.parts import read_image
from pipeline.report.figures import short
from pipeline.report.numbers import NEAR_DUPLICATE, Numbers, kept_keys
from pipeline.report.parameters import read_parameters

_SIDE = 176  # pixels of a thumbnail's longer side
_QUALITY = 72
_TOO_LARGE = ("rejected:max_pixels", "rejected:max_bytes")  # not decoded for a thumbnail either
_REJECTS = 6  # thumbnails a reason
_IN_GROUP = 4  # near duplicates shown of a group


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A thumbnail as a ``data:`` URI, or None where there is no picture to show."""

    label: str
    uri: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Pictures that belong together, with what is to be said of them."""

    pictures: list[Picture]
    text: str
    facts: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Cards under one title."""

    title: str
    cards: list[Card]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheets:
    """All that is shown.

    Attributes:
        samples: random, best and worst, with every condition.
        covered: most and least covered samples, by condition.
        rejects: rejected images, by status.
        groups: near duplicates beside the image that was kept.
    """

    samples: list[Sheet]
    covered: dict[str, list[Sheet]]
    rejects: dict[str, list[Card]]
    groups: list[Card]


def draw_sheets(
    dataset: Dataset,
    view: View,
    rejects: pa.Table,
    numbers: Numbers,
    *,
    most: int,
    sources: bool = True,
) -> Sheets:
    """Choose and draw all sheets.

    Args:
        dataset: where rejected images' sources are told.
        view: of everything.
        rejects: `Dataset.rejects`.
        numbers: of the same dataset.
        most: samples on a sheet; 0 draws no picture at all.
        sources: draw rejected images from the sources that the dataset names.
    """
    if not most:
        return Sheets(samples=[], covered={}, rejects={}, groups=[])
    shelf = _Shelf(dataset, view, sources)
    total = len(view)
    draw = np.random.Generator(np.random.Philox(0)).permutation(total)[:most]
    chosen = {
        "Random": sorted(int(at) for at in draw),
        "Best in rank": range(min(most, total)),
        "Last in rank": range(max(0, total - most), total),
    }
    return Sheets(
        samples=[shelf.sheet(title, places) for title, places in chosen.items()],
        covered=_covered(shelf, view, most),
        rejects=_draw_rejects(shelf, rejects, numbers),
        groups=_draw_groups(shelf, view, rejects, numbers),
    )


class _Shelf:
    """Reads samples and sources, each once, as thumbnails."""

    def __init__(self, dataset: Dataset, view: View, sources: bool) -> None:
        self._dataset = dataset
        self._view = view
        self._sample = cache(self._read_sample)
        named = dataset.source_metadata()
        roots = [root for name in ("images", "allowed") for root in named.get(name, ())]
        self._roots = [storage.absolute(str(root)).rstrip("/") for root in roots] if sources else []

    def sheet(self, title: str, places: Sequence[int], condition: str | None = None) -> Sheet:
        return Sheet(title=title, cards=[self.card(place, condition) for place in places])

    def card(self, place: int, condition: str | None = None) -> Card:
        row = self._view.table.slice(place, 1).to_pylist()[0]
        pictures = self._sample(place)
        if condition is not None:
            pictures = [one for one in pictures if one.label in ("image", condition)]
        size = f"{row['source_width']} x {row['source_height']}"
        return Card(
            pictures=pictures,
            text=row["caption"] or "",
            facts=[f"rank {row['rank']:,}", size, row["key"][:8]],
        )

    def _read_sample(self, place: int) -> list[Picture]:
        try:
            sample = self._view.read(place)
        except (CatalogError, OSError):
            return [Picture(label="image", uri=None)]
        return _pictures(sample)

    def source(self, row: dict[str, Any], length: int | None) -> Picture:
        """Return the thumbnail of an image where its source still has it."""
        name = unquote(row["uri"].rsplit("/", 1)[-1])
        if row["status"] in _TOO_LARGE or not self._lies_in_a_source(row["uri"]):
            return Picture(label=name, uri=None)
        try:
            data = read_image({**row, "length": length})
            return Picture(label=name, uri=_thumbnail(decode(data, at_least=_SIDE).pixels))
        except Exception:  # hostile bytes and vanished sources are what these rows are for
            return Picture(label=name, uri=None)

    def _lies_in_a_source(self, uri: str) -> bool:
        """Say whether the dataset was made of it: what is given away may name any file."""
        if ".." in unquote(uri).split("/"):
            return False
        return any(uri == root or uri.startswith(f"{root}/") for root in self._roots)

    def lengths(self, rows: list[dict[str, Any]]) -> dict[tuple[str, int], int]:
        """Return the length in bytes of what lies inside a tar, by tar and offset."""
        inside = {row["uri"] for row in rows if row["offset"] is not None}
        if not inside:
            return {}
        source = tables.read_table(self._dataset.source, ["uri", "offset", "length"])
        found = source.filter(pc.is_in(source["uri"], pa.array(sorted(inside)))).to_pylist()
        return {(row["uri"], row["offset"]): row["length"] for row in found}


def _pictures(sample: Sample) -> list[Picture]:
    files = {"image": sample.image, **dict(sorted(sample.conditions.items()))}
    return [
        Picture(label=name, uri=_thumbnail(decode(data).pixels)) for name, data in files.items()
    ]


def _thumbnail(pixels: np.ndarray) -> str:
    height, width = pixels.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    small = resize(pixels, (max(1, round(width * scale)), max(1, round(height * scale))))
    buffer = io.BytesIO()
    PILImage.fromarray(small).save(buffer, "WEBP", quality=_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _covered(shelf: _Shelf, view: View, most: int) -> dict[str, list[Sheet]]:
    """Draw for each condition that measures it the most and the least covered samples."""
    found = {}
    for name, values in read_parameters(view.table["parameters"]).items():
        if "coverage" not in values.schema.names:
            continue
        coverage = values["coverage"].to_numpy()
        places = np.flatnonzero(np.isfinite(coverage))
        order = [int(place) for place in places[np.argsort(coverage[places], kind="stable")]]
        ends = {"Most covered": order[::-1][:most], "Least covered": order[:most]}
        found[name] = [
            Sheet(
                title=title,
                cards=[_with_coverage(shelf, place, name, coverage[place]) for place in chosen],
            )
            for title, chosen in ends.items()
        ]
    return found


def _with_coverage(shelf: _Shelf, place: int, condition: str, coverage: float) -> Card:
    card = shelf.card(place, condition)
    return Card(pictures=card.pictures, text=card.text, facts=[f"{coverage:.2%}", *card.facts])


def _draw_rejects(shelf: _Shelf, rejects: pa.Table, numbers: Numbers) -> dict[str, list[Card]]:
    """Draw for each reason rows spread over all that it holds."""
    found = {}
    for reason in numbers.reasons:
        rows = rejects.filter(pc.equal(rejects["status"], reason.status))
        spread = np.unique(np.linspace(0, len(rows) - 1, _REJECTS, dtype=np.int64))
        found[reason.status] = _source_cards(shelf, rows.take(pa.array(spread)).to_pylist())
    return found


def _source_cards(shelf: _Shelf, rows: list[dict[str, Any]]) -> list[Card]:
    lengths = shelf.lengths(rows)
    cards = []
    for row in rows:
        picture = shelf.source(row, lengths.get((row["uri"], row["offset"])))
        facts = [f"{row['width']} x {row['height']}"] if row["width"] else []
        facts += [short(row["value"])] if row["value"] is not None else []
        text = f"{picture.label}: {row['detail']}" if row["detail"] else picture.label
        cards.append(Card(pictures=[picture], text=text, facts=facts))
    return cards


def _draw_groups(shelf: _Shelf, view: View, rejects: pa.Table, numbers: Numbers) -> list[Card]:
    """Draw the largest near-duplicate groups: the kept image, then some that look like it."""
    if numbers.near_duplicates is None:
        return []
    rows = rejects.filter(pc.equal(rejects["status"], NEAR_DUPLICATE))
    kept = kept_keys(rows)
    cards = []
    for key, size in numbers.near_duplicates.largest:
        alike = rows.filter(pc.equal(kept, key)).slice(0, _IN_GROUP).to_pylist()
        lengths = shelf.lengths(alike)
        place = pc.index(view.table["key"], key).as_py()
        first = shelf.card(place).pictures[:1] if place >= 0 else []
        others = [shelf.source(row, lengths.get((row["uri"], row["offset"]))) for row in alike]
        cards.append(Card(pictures=first + others, text="", facts=[key[:8], f"{size:,} alike"]))
    return cards
