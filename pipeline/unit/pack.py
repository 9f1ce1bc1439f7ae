"""The last step of a unit: image, maps, caption and json encoded as one block of a tar."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from catalog.dataset.shards import pack
from catalog.errors import of_the_place
from catalog.images import Image, encode_jpeg, encode_png_as_before
from catalog.png import encode_png
from catalog.sample import Sample, failed, sample_key, sha256_hex
from pipeline.recipe.recipe import Recipe
from pipeline.unit.image_work import Work


def png_encoder(recipe: Recipe) -> Callable[[np.ndarray], bytes]:
    """Return what makes a recipe's PNGs."""
    return encode_png if recipe.format >= 3 else encode_png_as_before


class Packer:
    """Encodes samples; safe in any thread."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._fingerprint = recipe.fingerprint
        self._encode_png = png_encoder(recipe)

    def __call__(self, work: Work) -> Work:
        """Return the image with its block, or with what went wrong; raises what is of the place."""
        assert work.pixels is not None
        try:
            block = pack(self._sample(work, work.pixels))
        except Exception as error:  # one image must not end the unit; its row names the class
            if of_the_place(error):
                raise
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
            image = self._encode_png(pixels)
        maps = {name: self._encode_png(result.map) for name, result in work.annotations.items()}
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
            "caption": work.caption.record(),
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
