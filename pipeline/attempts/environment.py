"""What besides the recipe can move a bit of a unit's bytes: versions, device, threads."""

import platform
from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import PIL
import pyarrow as pa
from PIL import features

from catalog.sample import canonical_json, sha256_hex
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe


def environment(
    recipe: Recipe, execution: Execution, rows: Iterable[Mapping[str, Any]] = ()
) -> dict[str, str]:
    """Return what besides the recipe can move a bit of the output.

    Args:
        recipe: what is made.
        execution: where.
        rows: of the plan, of which some may need a captioner.
    """
    signature = {
        "colours": "sRGB, without metadata",  # before it was said: as the source had them
        "device": execution.device,
        "libjpeg_turbo": str(features.version_feature("libjpeg_turbo")),
        "machine": platform.machine(),
        "opencv": cv2.__version__,
        "pillow": PIL.__version__,
        "pyarrow": pa.__version__,
    }
    if _runs_torch(recipe, rows):
        import torch

        signature["network_threads"] = str(execution.network_threads)
        signature["precision"] = recipe.precision
        signature["torch"] = torch.__version__
        if execution.device == "cuda":
            signature["device"] = torch.cuda.get_device_name()
            signature["convolutions"] = "as stated, deterministic"  # before it was said: TF32
    return signature


def fix_threads(
    recipe: Recipe, execution: Execution, rows: Iterable[Mapping[str, Any]] = ()
) -> None:
    """Set the threads inside torch: with another number it sums in another order.

    Args:
        recipe: what is made; torch is not imported where it needs none.
        execution: has the number.
        rows: of the plan, of which some may need a captioner.
    """
    if _runs_torch(recipe, rows):
        import torch

        torch.set_num_threads(execution.network_threads)


def _runs_torch(recipe: Recipe, rows: Iterable[Mapping[str, Any]]) -> bool:
    spec = recipe.captions
    if recipe.networks or spec.wants_all:
        return True
    return spec.network is not None and any(spec.wants(row["caption"]) for row in rows)


def signature(environment: Mapping[str, str]) -> str:
    """Name an environment; 16 hex characters."""
    return sha256_hex(canonical_json(dict(environment)))[:16]
