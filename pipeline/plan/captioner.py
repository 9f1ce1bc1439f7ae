"""Is the captioner here that the images need? Asked before any of them is worked on."""

import pyarrow as pa
import pyarrow.compute as pc

from captioning import weights
from captioning.blip import BlipSpec
from catalog.dataset.dataset import Dataset
from catalog.sample import OK
from pipeline.errors import UsageError
from pipeline.plan.judge import judge
from pipeline.recipe.recipe import Recipe
from pipeline.scan.scan import count_captions


def require_for_source(recipe: Recipe, source: pa.Table) -> None:
    """Refuse a build of scanned images that need a captioner that is not here.

    Raises:
        UsageError: it says how many images need it, and the ways on.
    """
    spec = recipe.captions
    if not isinstance(spec, BlipSpec):
        return
    said, usable = count_captions(source)
    if usable and (said < usable or spec.wants_all) and not _is_here(spec):
        judged = judge(source, recipe)
        captions = judged.filter(pc.equal(judged["status"], OK))["caption"].to_pylist()
        _refuse(spec, captions, frozen=False)


def require_for_pending(recipe: Recipe, dataset: Dataset, pending: list[int]) -> None:
    """Refuse to go on with units whose images need a captioner that is not here.

    Raises:
        UsageError: it says how many images need it, and the ways on.
    """
    spec = recipe.captions
    if not isinstance(spec, BlipSpec) or not pending:
        return
    counted = dataset.source_metadata().get("captions")
    if counted is not None and counted[0] == counted[1] and not spec.wants_all:
        return
    if not _is_here(spec):
        units = (dataset.plans.rows(index) for index in pending)
        captions = [text for unit in units for text in unit["caption"].to_pylist()]
        _refuse(spec, captions, frozen=True)


def _is_here(spec: BlipSpec) -> bool:
    return weights.where(spec.model, spec.revision) is not None


def _refuse(spec: BlipSpec, captions: list[str | None], *, frozen: bool) -> None:
    """Raise UsageError where one of the images, by the captions beside them, needs BLIP."""
    needed = sum(spec.wants(text) for text in captions)
    if not needed:
        return
    name = next((short for short, model in weights.NAMES.items() if model == spec.model), None)
    fetch = f"controlnet-factory weights fetch {name}" if name else f"hf download {spec.model}"
    elsewhere = "in another --out, " if frozen else ""
    raise UsageError(
        f"{needed:,} of {len(captions):,} images are to be captioned by BLIP (captions.captioner: "
        f"{spec.captioner}), and {spec.model} is not here; nothing was begun. Ways on:\n"
        f"  {fetch}, where there is a network; with --to FOLDER to carry it here, and then\n"
        f"    {weights.FOLDERS}=FOLDER\n"
        f"  {elsewhere}--set captions.model=./FOLDER, a folder that holds it\n"
        f"  {elsewhere}--set captions.captioner=sidecar: what has no text gets an empty caption"
    )
