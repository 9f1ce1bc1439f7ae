"""Presets: what ``--set preset=NAME`` stands for in a recipe.

Precision and batch move bits, so they belong to the recipe, and to its fingerprint; a preset states
them for a kind of machine. What is set beside it goes first.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from captioning.generated import LoadedSpec

if TYPE_CHECKING:
    from pipeline.recipe.recipe import Recipe


def _gpu(recipe: "Recipe") -> list[str]:
    """Return bf16 and large batches, which keep a GPU busy; the sizes were measured on none yet."""
    made = ["execution.device=cuda"]
    if recipe.networks:
        made += ["precision=bf16", "batch_size=32"]
    if isinstance(recipe.captions, LoadedSpec):
        batch = 256 if recipe.captions.called == "BLIP" else 32
        made += ["captions.precision=bf16", f"captions.batch_size={batch}"]
    return made


PRESETS: Mapping[str, Callable[["Recipe"], list[str]]] = {"gpu": _gpu}
"""By name, from a recipe to the overrides that the preset is for it."""
