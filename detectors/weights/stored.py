"""A checkpoint in a folder: whether it is whole, and how it gets there.

Kept ready to load: a safetensors file that was converted, a transformers folder with one, or the
original as it is.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from detectors.errors import WeightsError
from detectors.weights import tensor_file
from detectors.weights.checkpoints import Checkpoint
from detectors.weights.conversions import convert

ABSENT = "not there"
_KEPT = "kept"


def ready(checkpoint: Checkpoint, folder: Path) -> Path:
    """Return what a network loads: the file, or the transformers folder."""
    path = checkpoint.stored_in(folder)
    return path.parent if checkpoint.beside else path


def fault(checkpoint: Checkpoint, folder: Path, *, whole: bool) -> str | None:
    """Return what is wrong with what `folder` keeps ready to load, `ABSENT`, or None.

    Args:
        checkpoint: which.
        folder: a folder of checkpoints.
        whole: re-hash it; without it only the header and the size are looked at.
    """
    weights, *beside = _files(checkpoint, folder)
    if not weights.is_file():
        return ABSENT
    for path in beside:
        if not path.is_file():
            return f"{path.name} is missing beside it"
    if checkpoint.conversion is None:
        return original_fault(checkpoint, weights, whole=whole)
    return tensor_file.fault(weights, _made_from(checkpoint), whole=whole)


def original_fault(checkpoint: Checkpoint, path: Path, *, whole: bool) -> str | None:
    """Return what is wrong with an original file, `ABSENT`, or None."""
    if not path.is_file():
        return ABSENT
    size = path.stat().st_size
    if checkpoint.exact and size != checkpoint.bytes:
        return f"it has {size:,} bytes, expected {checkpoint.bytes:,}"
    if whole and checkpoint.sha256 is not None:
        found = _sha256(path)
        if found != checkpoint.sha256:
            return f"its sha256 is {found}, expected {checkpoint.sha256}"
    return None


def measured(checkpoint: Checkpoint, folder: Path) -> str:
    """Return the sha256, hex, of the weights that `folder` keeps as they were published."""
    weights = checkpoint.stored_in(folder)
    found = weights.stat()
    return _hash_once(weights, found.st_size, found.st_mtime_ns)


def keep(checkpoint: Checkpoint, original: Path, beside: Sequence[Path], part: Path) -> None:
    """Check an original and make of it, in the temporary folder `part`, what is kept.

    Raises:
        WeightsError: the original is not the one that the table names.
    """
    wrong = original_fault(checkpoint, original, whole=True)
    if wrong is not None:
        raise WeightsError(wrong)
    weights, *others = _files(checkpoint, part / _KEPT)
    weights.parent.mkdir(parents=True)
    if checkpoint.conversion is None:
        shutil.copyfile(original, weights)
    else:
        made = convert(checkpoint.conversion, original)
        tensor_file.write(weights, made, _made_from(checkpoint))
    for source, target in zip(beside, others, strict=True):
        shutil.copyfile(source, target)


def take(checkpoint: Checkpoint, folder: Path, part: Path) -> None:
    """Make what is kept, in the temporary folder `part`, of what another folder has.

    Raises:
        WeightsError: the folder has it neither ready nor as a good original.
    """
    original = checkpoint.original_in(folder)
    wrong = fault(checkpoint, folder, whole=True)
    if wrong is None:
        sources, targets = _files(checkpoint, folder), _files(checkpoint, part / _KEPT)
        targets[0].parent.mkdir(parents=True)
        for source, target in zip(sources, targets, strict=True):
            shutil.copyfile(source, target)
    elif checkpoint.conversion is not None and original.is_file():
        beside = [original.parent / name for name in checkpoint.beside]
        keep(checkpoint, original, beside, part)
    else:
        raise WeightsError(wrong)


def install(checkpoint: Checkpoint, part: Path, target: Path) -> None:
    """Rename what is kept into its place, over what is there."""
    made, place = ready(checkpoint, part / _KEPT), ready(checkpoint, target)
    if place.is_dir():
        shutil.rmtree(place)
    os.replace(made, place)


@lru_cache(maxsize=64)
def _hash_once(path: Path, size: int, modified: int) -> str:
    """Hash a file; size and time of change are there to tell a changed file from a known one."""
    return _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(checkpoint: Checkpoint, folder: Path) -> list[Path]:
    weights = checkpoint.stored_in(folder)
    return [weights, *(weights.parent / name for name in checkpoint.beside)]


def _made_from(checkpoint: Checkpoint) -> dict[str, str]:
    assert checkpoint.conversion is not None, checkpoint.name
    assert checkpoint.sha256 is not None, checkpoint.name  # what is converted is known
    return {"source_sha256": checkpoint.sha256, "conversion": checkpoint.conversion}
