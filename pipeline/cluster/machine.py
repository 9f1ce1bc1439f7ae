"""Facts about the machine that this runs on, for `doctor`: collected here, judged elsewhere."""

import platform
import shutil
import tempfile
import tomllib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import captioning.weights
from catalog import storage
from catalog.errors import CatalogError
from detectors import weights

OPENCVS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
"""The distributions that all install the package cv2."""

_PROJECT = "controlnet-factory"
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What was found on one machine.

    Attributes:
        host: its name.
        python: version.
        installed: versions of the distributions, by canonical name.
        unmet: requirements of this project that are not met, by canonical name.
        gpus: names of the GPUs that torch sees.
        missing_weights: checkpoints that were asked for and are not there.
        free_bytes: free space of the folders that a build writes to.
        shared_memory: size of the shared memory; bytes, 0 where there is none.
        storage_fault: why a dataset cannot be written; None: it can, or nothing was asked.
    """

    host: str
    python: str
    installed: dict[str, str]
    unmet: dict[str, str]
    gpus: tuple[str, ...]
    missing_weights: tuple[str, ...]
    free_bytes: dict[str, int]
    shared_memory: int
    storage_fault: str | None


def look(checkpoints: Sequence[str], out: str | None) -> Machine:
    """Collect the facts of this machine; writes and removes a probe where `out` is given."""
    installed: dict[str, str] = {
        canonicalize_name(found.name): found.version for found in metadata.distributions()
    }
    return Machine(
        host=platform.node(),
        python=platform.python_version(),
        installed=installed,
        unmet=unmet(requirements(), installed),
        gpus=_gpus(),
        missing_weights=tuple(name for name in checkpoints if not _is_here(name)),
        free_bytes=_free_bytes(out),
        shared_memory=shutil.disk_usage(_SHARED_MEMORY).total if _SHARED_MEMORY.is_dir() else 0,
        storage_fault=None if out is None else probe(out),
    )


def _is_here(checkpoint: str) -> bool:
    """Say whether a detector's checkpoint, or a captioner by its short name, is on this machine."""
    model = captioning.weights.NAMES.get(checkpoint)
    found = weights.where(checkpoint) if model is None else captioning.weights.where(model, None)
    return found is not None


def requirements() -> list[str]:
    """Return this project's requirements: of the installed package, else of the checkout."""
    try:
        return metadata.requires(_PROJECT) or []
    except metadata.PackageNotFoundError:  # a working directory that Ray unpacked
        text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
        return list(tomllib.loads(text)["project"]["dependencies"])


def unmet(lines: Sequence[str], installed: dict[str, str]) -> dict[str, str]:
    """Return those requirements that the installed versions do not meet; extras are left out."""
    found = {}
    for requirement in map(Requirement, lines):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = str(canonicalize_name(requirement.name))
        if not requirement.specifier.contains(installed.get(name, "0"), prereleases=True):
            found[name] = f"{requirement.name}{requirement.specifier}"
    return found


def probe(out: str) -> str | None:
    """Try all that a build does in a folder; return what does not work, or None."""
    uri = storage.join(_nearest(out), f".doctor.{uuid.uuid4().hex}.tmp")
    data = b"controlnet-factory doctor"
    try:
        storage.create_once(uri, data)
        try:
            return _try_again(uri, data)
        finally:
            storage.remove(uri)
    except (OSError, CatalogError) as error:
        return f"{type(error).__name__}: {error}"


def _try_again(uri: str, data: bytes) -> str | None:
    try:
        storage.create_once(uri, b"")
    except FileExistsError:
        pass
    else:
        return "a second writer replaced the first's file: commits would not be safe"
    if storage.read_bytes(uri) != data:
        return "what was written is not what is read"
    name = uri.rsplit("/", 1)[-1]
    return None if name in storage.list_names(uri.removesuffix(f"/{name}")) else "not listed"


def _nearest(uri: str) -> str:
    """Return the folder itself, or where it is local and absent what stands nearest above it."""
    path = storage.local_path(uri)
    if path is None:
        return uri
    path = path.absolute()
    return str(next(found for found in (path, *path.parents) if found.exists()))


def _gpus() -> tuple[str, ...]:
    import torch

    return tuple(torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count()))


def _free_bytes(out: str | None) -> dict[str, int]:
    """Attempts are written below a local dataset, else below the temporary folder."""
    folders = {tempfile.gettempdir()}
    if out is not None and storage.local_path(out) is not None:
        folders.add(_nearest(out))
    return {folder: shutil.disk_usage(folder).free for folder in sorted(folders)}
