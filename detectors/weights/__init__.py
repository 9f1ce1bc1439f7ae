"""Checkpoints on this machine: found, or fetched once, checked, converted and kept.

Looked at in order: the folders of CONTROLNET_FACTORY_WEIGHTS (several are separated as in PATH),
which may hold originals under their own names or what `fetch` makes; the cache; then the sources of
`detectors.weights.checkpoints`. Everything is made under a temporary name, checked, and renamed: a
file under its own name is whole. Processes that want the same one wait for the first.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from detectors.errors import WeightsError
from detectors.weights import stored
from detectors.weights.checkpoints import Checkpoint, Hub, Package, Source, find
from detectors.weights.origins import obtain

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

FOLDERS = "CONTROLNET_FACTORY_WEIGHTS"
CACHE = "CONTROLNET_FACTORY_CACHE"

From: TypeAlias = Literal["hub", "packages", "any"]
_KINDS: dict[From, tuple[type, ...]] = {
    "hub": (Hub,),
    "packages": (Package,),
    "any": (Hub, Package),
}


def load_state_dict(name: str) -> "dict[str, torch.Tensor]":
    """Return a checkpoint's tensors, on the CPU, by the names that its network gives them.

    Raises:
        WeightsError: unknown, not to be had, or no state dict.
    """
    path = resolve(name)
    if path.suffix != ".safetensors":
        raise WeightsError(f"{name} is kept as {path.name}, which is no state dict: use resolve")
    from safetensors.torch import load_file

    return load_file(path)


def resolve(name: str) -> Path:
    """Return a checkpoint's file, or transformers folder, whole and ready to load; may fetch it.

    Raises:
        WeightsError: unknown or not to be had; the message says what was tried and what helps.
    """
    return fetch(name)


def identity(name: str) -> str:
    """Return what stands for a checkpoint in a recipe's fingerprint: its original's sha256, hex.

    Of one whose hash is not known here, that of the file on this machine.

    Raises:
        WeightsError: unknown, or of unknown hash and not here.
    """
    checkpoint = find(name)
    return checkpoint.sha256 or stored.measured(checkpoint, resolve(name).parent)


def where(name: str) -> Path | None:
    """Return where a checkpoint is on this machine, ready or as the original, or None.

    Headers and sizes are looked at; `verify` re-hashes.

    Raises:
        WeightsError: unknown.
    """
    checkpoint = find(name)
    for folder in [*folders(), cache_folder()]:
        if stored.fault(checkpoint, folder, whole=False) is None:
            return stored.ready(checkpoint, folder)
    for folder in folders() if checkpoint.conversion else []:  # else it was looked at above
        original = checkpoint.original_in(folder)
        if stored.original_fault(checkpoint, original, whole=False) is None:
            return original
    return None


def verify(name: str) -> str | None:
    """Re-hash every copy on this machine; return what is wrong with the first bad one, or None.

    Raises:
        WeightsError: unknown.
    """
    checkpoint = find(name)
    for folder in [*folders(), cache_folder()]:
        faults = {checkpoint.stored_in(folder): stored.fault(checkpoint, folder, whole=True)}
        if checkpoint.conversion:  # else the original is what is kept
            original = checkpoint.original_in(folder)
            faults[original] = stored.original_fault(checkpoint, original, whole=True)
        for path, fault in faults.items():
            if fault not in (None, stored.ABSENT):
                return f"{path}: {fault}"
    return None


def fetch(name: str, *, source: From = "any", to: Path | None = None) -> Path:
    """Return a checkpoint, ready to load, out of the first place that has it whole.

    Args:
        name: of the checkpoint.
        source: which sources may be asked; local folders and the cache always are.
        to: the folder that shall hold it, for CONTROLNET_FACTORY_WEIGHTS to name elsewhere; default
            the cache, unless a local folder has it ready.

    Raises:
        WeightsError: unknown or not to be had; the message says what was tried and what helps.
    """
    checkpoint = find(name)
    target = cache_folder() if to is None else to
    for folder in [*folders(), target] if to is None else [target]:
        if stored.fault(checkpoint, folder, whole=True) is None:
            return stored.ready(checkpoint, folder)
    with _locked(target, name):
        if stored.fault(checkpoint, target, whole=True) is not None:  # no other process made it
            _make(checkpoint, target, source)
    return stored.ready(checkpoint, target)


def folders() -> list[Path]:
    """Return the folders that CONTROLNET_FACTORY_WEIGHTS names."""
    named = os.environ.get(FOLDERS, "").split(os.pathsep)
    return [Path(folder).expanduser() for folder in named if folder]


def cache_folder() -> Path:
    """Return the folder that `fetch` keeps checkpoints in; CONTROLNET_FACTORY_CACHE moves it."""
    import platformdirs

    root = os.environ.get(CACHE) or platformdirs.user_cache_dir("controlnet-factory")
    return Path(root).expanduser() / "weights"


@contextmanager
def _locked(target: Path, name: str) -> Iterator[None]:
    """Hold one checkpoint of a folder, for this process alone."""
    from filelock import FileLock

    locks = target / ".locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(
            f"{name} cannot be kept in {target}: {error.strerror}; "
            f"give a folder that can be written; {CACHE} moves the cache"
        ) from error
    with FileLock(locks / f"{name}.lock"):
        for left_over in target.glob(f".{name}-*"):  # of a process that was killed
            shutil.rmtree(left_over)
        yield


def _make(checkpoint: Checkpoint, target: Path, source: From) -> None:
    """Put a checkpoint into a folder, from the first place that gives it."""
    tried: dict[str, str] = {}
    for label, attempt in _attempts(checkpoint, source):
        # Beside its place, because a rename does not cross file systems.
        with tempfile.TemporaryDirectory(prefix=f".{checkpoint.name}-", dir=target) as temporary:
            try:
                attempt(Path(temporary))
            except WeightsError as error:
                tried[label] = str(error)
                continue
            stored.install(checkpoint, Path(temporary), target)
            log.info("%s: from %s to %s", checkpoint.name, label, target)
            return
    raise WeightsError(_not_to_be_had(checkpoint, tried, source))


def _attempts(checkpoint: Checkpoint, source: From) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Yield all that may give a checkpoint: a name, and what makes it in a temporary folder."""
    for folder in folders():
        yield f"{folder} ({FOLDERS})", partial(stored.take, checkpoint, folder)
    yield f"{cache_folder()} (cache)", partial(stored.take, checkpoint, cache_folder())
    for chosen in checkpoint.sources:
        if isinstance(chosen, _KINDS[source]):
            yield str(chosen), partial(_download, checkpoint, chosen)


def _download(checkpoint: Checkpoint, source: Source, part: Path) -> None:
    downloads = part / "downloads"
    downloads.mkdir()
    original, *beside = obtain(checkpoint, source, downloads)
    stored.keep(checkpoint, original, beside, part)


def _not_to_be_had(checkpoint: Checkpoint, tried: dict[str, str], source: From) -> str:
    name, about = checkpoint.name, "" if checkpoint.exact else "about "
    size = f"{about}{checkpoint.bytes / (1 << 20):.1f} MiB"
    unasked = [str(one) for one in checkpoint.sources if not isinstance(one, _KINDS[source])]
    lines = [f"the checkpoint {name} ({checkpoint.file}, {size}) is not here and cannot be had:"]
    lines += [] if folders() else [f"  {FOLDERS} is not set"]
    lines += [f"  {label}: {reason}" for label, reason in tried.items()]
    lines += [f"  {label}: not asked, only {source}" for label in unasked]
    if checkpoint.sources:
        lines += [
            f"Where there is a network: controlnet-factory weights fetch {name} --to FOLDER",
            f"Then, here: {FOLDERS}=FOLDER",
        ]
    else:
        files = ", ".join((checkpoint.file, *checkpoint.beside))
        place = f"FOLDER/{name}" if checkpoint.beside else "a FOLDER"
        lines += [f"Put {files} ({checkpoint.origin}) in {place} and set {FOLDERS}=FOLDER"]
    return "\n".join(lines)
