"""Is the captioner here that the images need? Asked before any of them is worked on."""

import pyarrow as pa
import pyarrow.compute as pc

from captioning import endpoint_client, weights
from captioning.base import Spec
from captioning.endpoint import EndpointSpec
from captioning.generated import LoadedSpec
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
    if spec.network is None:
        return
    said, usable = count_captions(source)
    if usable and (said < usable or spec.wants_all) and (why := _why_not(spec, frozen=False)):
        judged = judge(source, recipe)
        captions = judged["caption"].filter(pc.equal(judged["status"], OK)).to_pylist()
        _refuse(spec, captions, why)


def require_for_pending(recipe: Recipe, dataset: Dataset, pending: list[int]) -> None:
    """Refuse to go on with units whose images need a captioner that is not here.

    Raises:
        UsageError: it says how many images need it, and the ways on.
    """
    spec = recipe.captions
    if spec.network is None or not pending:
        return
    counted = dataset.source_metadata().get("captions")
    if counted is not None and counted[0] == counted[1] and not spec.wants_all:
        return
    if why := _why_not(spec, frozen=True):
        units = (dataset.plans.rows(index) for index in pending)
        captions = [text for unit in units for text in unit["caption"].to_pylist()]
        _refuse(spec, captions, why)


def _why_not(spec: Spec, *, frozen: bool) -> str | None:
    """Return why a captioner cannot be used here, and the ways on; None where it can."""
    elsewhere = "in another --out, " if frozen else ""
    without = (
        f"  {elsewhere}--set captions.captioner=sidecar: what has no text gets an empty caption"
    )
    if isinstance(spec, EndpointSpec):
        why = endpoint_client.why_not(spec)
        if why is None:
            return None
        return (
            f"by {spec.model}, and {why}; nothing was begun. Ways on:\n"
            f"  serve it there, or say where: --set captions.url=URL, with its /v1\n{without}"
        )
    if not isinstance(spec, LoadedSpec) or weights.where(spec.model, spec.revision) is not None:
        return None
    name = next((short for short, model in weights.NAMES.items() if model == spec.model), None)
    fetch = f"  hf download {spec.model} --revision {spec.revision}, where there is a network"
    if name is not None:
        fetch = (
            f"  controlnet-factory weights fetch {name}, where there is a network; with --to "
            f"FOLDER to carry it here, and then\n    {weights.FOLDERS}=FOLDER"
        )
    return (
        f"by {spec.called} (captions.captioner: {spec.captioner}), and {spec.model} is not here; "
        f"nothing was begun. Ways on:\n{fetch}\n"
        f"  {elsewhere}--set captions.model=./FOLDER, a folder that holds it\n{without}"
    )


def _refuse(spec: Spec, captions: list[str | None], why: str) -> None:
    """Raise UsageError where one of the images, by the captions beside them, needs a network."""
    needed = sum(spec.wants(text) for text in captions)
    if needed:
        raise UsageError(f"{needed:,} of {len(captions):,} images are to be captioned {why}")
