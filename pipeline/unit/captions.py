"""The generated texts of a unit: which are known, which the network must still write."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from captioning.base import Caption, Image, Network, Spec
from catalog.errors import of_the_place
from catalog.sample import canonical_json, failed, rejected, sha256_hex
from detectors.graph import out_of_memory
from pipeline.errors import BuildError
from pipeline.recipe.recipe import Recipe
from pipeline.unit.caption_cache import Text
from pipeline.unit.image_work import Work

PREPARATION = 1
"""Counts up when the captioner comes to be given other pixels of the same image."""


class UnitTexts:
    """What is generated for one unit's images, cached or new; a captioner's choice from it."""

    def __init__(self, spec: Spec, load: Callable[[], Network], known: Mapping[str, Text]) -> None:
        """Begin a unit.

        Args:
            spec: of the captioner.
            load: returns its network; called only where a text is lacking.
            known: texts that are there, by sha256.
        """
        self._spec = spec
        self._load = load
        self._known = known
        self._failures: dict[str, Exception] = {}
        self._used: set[str] = set()
        self.new: dict[str, str] = {}
        """Texts that the network wrote, by sha256."""
        self.batches = 0
        """Calls of the network."""

    @property
    def batch_size(self) -> int:
        """Images that the network is given at once."""
        return 1 if self._spec.network is None else self._spec.network.batch_size

    @property
    def made_by(self) -> set[str]:
        """Signatures of the environments in which the cached texts that were used were made."""
        return self._used

    def lacks(self, row: Mapping[str, Any]) -> bool:
        """Say whether the network must look at the image of a plan's row."""
        return row["sha256"] not in self._known and self._spec.wants(row["caption"])

    def prepare(self, image: Image) -> Any:
        """Bring an image to what the network takes; safe in any thread."""
        return self._load().prepare(image)

    def generate(self, prepared: Mapping[str, Any]) -> None:
        """Write a text for each image, at most a batch of them, by sha256.

        Where a batch fails each image is tried alone, and `choose` raises what failed for it.

        Raises:
            BuildError: the device has too little memory.
        """
        self.batches += 1
        try:
            texts = self._load()(list(prepared.values()))
        except Exception as error:  # one image must not cost the others their captions
            if out_of_memory(error):
                raise BuildError(
                    f"the device has too little memory for {self.batch_size} images at once: "
                    "lower captions.batch_size in the recipe, in a new dataset"
                ) from error
            if of_the_place(error):
                raise
            if len(prepared) == 1:
                self._failures |= dict.fromkeys(prepared, error)
                return
            for sha256, one in prepared.items():
                self.generate({sha256: one})
            return
        self.new |= dict(zip(prepared, texts, strict=True))

    def choose(self, row: Mapping[str, Any]) -> Caption | None:
        """Return an image's caption, or None where it has none; raises what the network raised."""
        sha256, found = row["sha256"], row["caption"]
        if not self._spec.wants(found):
            return self._spec.choose(found, None)
        if sha256 in self._failures:
            raise self._failures[sha256]
        if sha256 in self.new:
            return self._spec.choose(found, self.new[sha256])
        self._used.add(self._known[sha256].made_by)
        return self._spec.choose(found, self._known[sha256].text)


def captioned(work: Work, texts: UnitTexts) -> Work:
    """Give an image its caption, or end its way; raises what is of the place."""
    try:
        caption = texts.choose(work.row)
    except Exception as error:  # the network's, at this image; its row names the class
        if of_the_place(error):
            raise
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


def captioner_fingerprint(recipe: Recipe) -> str | None:
    """Hash over all that changes a generated text of given image bytes; 32 hex characters.

    The pixels that are looked at are those that are stored, so the image's size and crop belong to
    it; None for a recipe without a captioning network.
    """
    network = recipe.captions.network
    if network is None:
        return None
    pixels = recipe.image.model_dump(include={"resolution", "crop", "reduced_decode"})
    record = {"network": network.network_identity, "pixels": pixels, "preparation": PREPARATION}
    return sha256_hex(canonical_json(record))[:32]
