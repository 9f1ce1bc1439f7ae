"""Checkpoints: what a run resumes from, and what others load.

    RUN/checkpoints/000100/
        config.json, diffusion_pytorch_model.safetensors    the ControlNet, in diffusers' own layout
        unet/                                               the UNet, where it learns, likewise
        average/                                            the averaged weights, likewise (ema)
        state.pt                                            optimizer, scaler
        random-0000.pt                                      torch's generators, one file a process
        checkpoint.json                                     step, position, phase, hash of each file

A checkpoint is written into a temporary folder by all processes, its manifest last; the rename is
the commit, so what has a final name is whole. It stands between two optimizer steps: there is no
micro-step to remember. Order, noise, crop and dropout are functions of the position, the learning
rate of the step; torch's own generators are kept for networks that draw from them.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from catalog.storage import sha256_file, sync_folder, write_atomic
from training.errors import CheckpointError
from training.model.denoiser import UNET, Denoiser

WEIGHTS = "diffusion_pytorch_model.safetensors"
CONFIG = "config.json"
STATE = "state.pt"
AVERAGE = "average"
MANIFEST = "checkpoint.json"
_WRITING = ".tmp"
_DOOMED = ".old"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What training goes on from, beside the weights.

    Attributes:
        optimizer: the optimizer's state dict.
        scaler: the fp16 gradient scaler's state dict; None in other precisions.
    """

    optimizer: dict[str, Any]
    scaler: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a training stands.

    Attributes:
        step: optimizer steps done.
        sample: the next global sample index.
        phase: index of the phase in hand.
        phase_begun: the step that it began after.
        trained: index of the phase that the last step belonged to; None in checkpoints of earlier
            versions.
    """

    step: int = 0
    sample: int = 0
    phase: int = 0
    phase_begun: int = 0
    trained: int | None = None

    @property
    def trained_phase(self) -> int:
        """Index of the phase whose connections the weights were trained with."""
        if self.trained is not None:
            return self.trained
        return max(0, self.phase - (self.phase_begun == self.step and self.step > 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A committed checkpoint.

    Attributes:
        folder: where it stands; `ControlNetModel.from_pretrained` loads it.
        position: where the training stood.
        files: hex sha256 by the file's path in the folder.
    """

    folder: Path
    position: Position
    files: dict[str, str]

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.position.step


def begin(run: Path, step: int) -> Path:
    """Return an empty temporary folder for the checkpoint of `step`; on the main process."""
    folder = temporary(run, step)
    for ending in (_WRITING, _DOOMED):  # left by a run that was killed while writing or deleting
        for left in folder.parent.glob(f".[0-9]*{ending}"):
            shutil.rmtree(left)
    folder.mkdir(parents=True)
    return folder


def temporary(run: Path, step: int) -> Path:
    """Return the folder in which the checkpoint of `step` is written, on every process."""
    return run / "checkpoints" / f".{step:06d}{_WRITING}"


def write_random_state(folder: Path, process: int) -> None:
    """Write the state of torch's generators in this process."""
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    torch.save({"cpu": torch.get_rng_state(), "cuda": devices}, folder / _random_file(process))


def restore_random_state(checkpoint: Checkpoint, process: int) -> None:
    """Set torch's generators of this process; a process that was not there keeps its own."""
    path = checkpoint.folder / _random_file(process)
    if path.is_file():
        held = torch.load(path, weights_only=True)
        torch.set_rng_state(held["cpu"])
        if len(held["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(held["cuda"])


def _random_file(process: int) -> str:
    return f"random-{process:04d}.pt"


def write_state(folder: Path, denoiser: Denoiser, state: State) -> None:
    """Write the weights that learn, in fp32, with optimizer and scaler; on the main process."""
    denoiser.save(folder)
    torch.save({"optimizer": state.optimizer, "scaler": state.scaler}, folder / STATE)


def commit(folder: Path, position: Position) -> Checkpoint:
    """Hash what stands in the temporary `folder`, write the manifest, and give it its name."""
    final = folder.with_name(f"{position.step:06d}")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): _sync_and_hash(path) for path in paths}
    manifest = {**asdict(position), "files": files}
    write_atomic(str(folder / MANIFEST), json.dumps(manifest, indent=2).encode())
    for part in {folder, *(path.parent for path in paths)}:
        sync_folder(part)
    folder.rename(final)
    sync_folder(final.parent)
    return Checkpoint(folder=final, position=position, files=files)


def list_checkpoints(run: Path) -> list[Checkpoint]:
    """Return the committed checkpoints of `run`, by step."""
    manifests = (run / "checkpoints").glob(f"[0-9]*/{MANIFEST}")
    return sorted(map(_read, manifests), key=lambda checkpoint: checkpoint.step)


def _read(manifest: Path) -> Checkpoint:
    content = json.loads(manifest.read_bytes())
    files = content.pop("files")
    return Checkpoint(folder=manifest.parent, position=Position(**content), files=files)


def verify(checkpoint: Checkpoint) -> None:
    """Hash the files of `checkpoint`.

    Raises:
        CheckpointError: a file is missing or differs from what was committed.
    """
    for name, expected in checkpoint.files.items():
        path = checkpoint.folder / name
        found = sha256_file(str(path)) if path.is_file() else "nothing"
        if found != expected:
            raise CheckpointError(
                f"{path} is damaged: expected sha256 {expected}, found {found}. "
                f"Delete {checkpoint.folder} to resume from the checkpoint before it"
            )


def load_state(checkpoint: Checkpoint) -> State:
    """Load the optimizer and scaler state of `checkpoint`, on the CPU."""
    state = torch.load(checkpoint.folder / STATE, map_location="cpu", weights_only=True)
    return State(optimizer=state["optimizer"], scaler=state["scaler"])


def prune(run: Path, *, keep_last: int, best: int | None) -> None:
    """Delete all but the newest `keep_last` checkpoints and the one of step `best`."""
    for checkpoint in list_checkpoints(run)[:-keep_last]:
        if checkpoint.step != best:
            doomed = checkpoint.folder.with_name(f".{checkpoint.folder.name}{_DOOMED}")
            checkpoint.folder.rename(doomed)
            shutil.rmtree(doomed)


def publish(checkpoint: Checkpoint, run: Path) -> None:
    """Put the networks of `checkpoint` into `run` itself, where others load them from.

    Averaged weights, where the checkpoint has them, are what is published.
    """
    held = checkpoint.folder / AVERAGE
    source = held if held.is_dir() else checkpoint.folder
    for name in (CONFIG, WEIGHTS, f"{UNET}/{CONFIG}", f"{UNET}/{WEIGHTS}"):
        if (source / name).is_file():
            (run / name).parent.mkdir(exist_ok=True)
            copied = (run / name).with_name(f".{Path(name).name}.tmp")
            shutil.copyfile(source / name, copied)
            _sync_and_hash(copied)
            os.replace(copied, run / name)


def _sync_and_hash(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return sha256_file(str(path))
