"""The first step of a unit: an image's bytes to pixels of the final size, judged by the rules."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from catalog.errors import CatalogError, ImageError
from catalog.images import decode, fit, pixels_decoded, target_size
from catalog.jpeg import without_metadata
from catalog.sample import failed, rejected, sha256_hex
from catalog.source.labels import fit_label, read_label
from catalog.source.parts import read_image
from catalog.source.presence import blame
from catalog.source.quality import measure
from pipeline.recipe.recipe import Recipe
from pipeline.unit.earlier_maps import EarlierMaps
from pipeline.unit.image_rules import broken_rule
from pipeline.unit.image_work import Work
from pipeline.unit.room import Room
from pipeline.unit.watch import Watch, unwatched

_PIXELS = 100_000_000
"""Decoded at once by all threads: as many as a recipe lets one image have, unless it says more."""


class SourceChanged(CatalogError):
    """An image's bytes are not those that the scan hashed."""


class Loader:
    """Reads, checks, decodes and resizes; safe in any thread."""

    def __init__(self, recipe: Recipe, reuse: str | None, roots: Sequence[str] = ()) -> None:
        """Prepare for a recipe.

        Args:
            recipe: what is made of an image.
            reuse: URI of a dataset whose maps are taken, or None.
            roots: URIs of the sources, by which a missing file is told from a missing source.
        """
        self._recipe = recipe
        self._roots = roots
        self._earlier = None if reuse is None else EarlierMaps(reuse, recipe)
        self._decoding = Room(_PIXELS)

    def __call__(
        self,
        row: Mapping[str, Any],
        watch: Watch = unwatched,
        read: Callable[[dict[str, Any]], bytes] = read_image,
    ) -> Work:
        """Return the image, or why it is none; `watch` is over all but the reading.

        Args:
            row: of the plan.
            watch: over the process.
            read: returns an image's encoded bytes.

        Raises:
            PlaceError: what it lies in cannot be read; it says nothing of the image.
        """
        options = self._recipe.image
        at_least = options.resolution if options.reduced_decode else None
        held = pixels_decoded(
            row["width"], row["height"], jpeg=row["format"] == "JPEG", at_least=at_least
        )
        try:
            data = read(dict(row))
            with self._decoding.held(held), watch([row["sha256"]]):
                if sha256_hex(data) != row["sha256"]:
                    raise SourceChanged(f"{row['uri']} changed after it was scanned")
                decoded = decode(
                    data,
                    at_least=at_least,
                    strict=self._recipe.rules.damaged_jpeg,
                )
                measures = asdict(measure(decoded.pixels))
                broken = broken_rule(measures, self._recipe.rules)
                if broken is not None:
                    return Work(row=row, measures=measures, rejection=broken)
                pixels = fit(decoded.pixels, resolution=options.resolution, crop=options.crop)
            label = self._label(row)
            earlier = self._earlier.read(row["sha256"]) if self._earlier else None
        except ImageError as error:
            rejection = rejected(error.rule, value=error.value, detail=str(error))
            return Work(row=row, rejection=rejection)
        except Exception as error:  # one image must not end the unit; its row names the class
            blame(error, [row["uri"], *([row["label"]] if row["label"] else [])], self._roots)
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
            original=_original(data) if keeps and options.format == "jpg" else None,
            jpeg_scale=decoded.jpeg_scale,
            measures=measures | (earlier.scores if earlier else {}),
            earlier=earlier.annotations if earlier else {},
            earlier_made_in=earlier.made_in if earlier else "",
        )

    def _label(self, row: Mapping[str, Any]) -> np.ndarray | None:
        if self._recipe.labels is None:
            return None
        options = self._recipe.image
        return fit_label(
            read_label(row["label"], row["label_sha256"], (row["width"], row["height"])),
            width=row["width"],
            height=row["height"],
            resolution=options.resolution,
            crop=options.crop,
        )


def _original(jpeg: bytes) -> bytes | None:
    """Return a JPEG as it is stored, without what it says of its maker; None: it is made anew."""
    try:
        return without_metadata(jpeg)
    except ValueError:
        return None
