"""What besides the recipe can move a bit of a unit's bytes: versions, device, CPU, threads.

Two attempts whose environments are equal must give equal bytes, so what is left out here raises
false alarms, and what need not be here only turns an alarm into a recorded mismatch.
"""

import platform
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from typing import Any

import cv2
import numpy as np
import PIL
import pyarrow as pa
from PIL import features

from catalog.dataset.commits import UNKNOWN
from catalog.sample import canonical_json, sha256_hex
from pipeline.attempts import processor
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe

_OF_NETWORKS = (
    "ai-edge-litert",
    "controlnet-aux",
    "openpifpaf",
    "scikit-image",
    "scipy",
    "torchvision",
    "transformers",
)

_NOT_OF_MAPS = ("captions", "set_aside")


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
        "cpu": processor.model(),
        "device": execution.device,
        "instructions": processor.instructions(),
        "libjpeg_turbo": str(features.version_feature("libjpeg_turbo")),
        "machine": platform.machine(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "pillow": PIL.__version__,
        "pyarrow": pa.__version__,
        "simplejpeg": _version("simplejpeg"),
    }
    if _runs_torch(recipe, rows):
        import torch

        signature["network_threads"] = str(execution.network_threads)
        signature["precision"] = recipe.precision
        signature["torch"] = torch.__version__
        signature["kernels"] = torch.backends.cpu.get_cpu_capability()
        signature |= {name: _version(name) for name in _OF_NETWORKS}
        if execution.device == "cuda":
            signature["device"] = torch.cuda.get_device_name()
            cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
            signature["cudnn"] = str(cudnn)
            signature["convolutions"] = "as stated, deterministic"  # before it was said: TF32
    return signature


@cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def micro_batch(before: int, after: int) -> dict[str, str]:
    """Name a unit's micro-batch, in images; where in the unit it fell is nowhere told."""
    told = str(after) if after == before else f"{UNKNOWN}: fell from {before} to {after}"
    return {"micro_batch": told}


def without(poison: Iterable[str]) -> dict[str, str]:
    """Name the images, by sha256, that an attempt did not touch: another one may have."""
    aside = sorted(poison)
    return {"set_aside": sha256_hex(canonical_json(aside))[:16]} if aside else {}


def mapped_in(reused: Iterable[str], made_in: Mapping[str, str]) -> dict[str, str]:
    """Name the other environments, if any, that a unit's maps are from; `of_maps` names one."""
    others = {*reused} - {of_maps(made_in)}
    return {"maps": " ".join(sorted(others))} if others else {}


def captioned_in(cached: Iterable[str], new: str | None) -> dict[str, str]:
    """Name the environments that a unit's texts are from: the cache may hold another's.

    Args:
        cached: of texts that were there already.
        new: of those that were generated; None for none.
    """
    made_by = {*cached, *([new] if new else [])}
    return {"captions": " ".join(sorted(made_by))} if made_by else {}


def of_maps(environment: Mapping[str, str]) -> str:
    """Name the environment of a unit's maps, captions aside; 16 hex characters."""
    kept = {name: value for name, value in environment.items() if name not in _NOT_OF_MAPS}
    return signature(kept)


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
    if recipe.networks:
        return True
    if not spec.on_device:
        return False
    return spec.wants_all or any(spec.wants(row["caption"]) for row in rows)


def signature(environment: Mapping[str, str]) -> str:
    """Name an environment; 16 hex characters."""
    return sha256_hex(canonical_json(dict(environment)))[:16]
