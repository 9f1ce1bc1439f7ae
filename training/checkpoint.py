"""Checkpoints: what a run resumes from, and what others load.

    RUN/checkpoints/000100/
        config.json, diffusion_pytorch_model.safetensors    the network, in diffusers' own layout
        state.pt                                            optimizer, scaler
        checkpoint.json                                     step, position, hash of each file

A checkpoint is written into a temporary folder, its manifest last; the rename is the commit, so
what has a final name is whole. The order, the noise and the dropout are functions of the position,
and every process holds the same optimizer state: so nothing here belongs to one process.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel

from catalog.storage import sha256_file, write_atomic
from training.errors import CheckpointError

WEIGHTS = "diffusion_pytorch_model.safetensors"
CONFIG = "config.json"
STATE = "state.pt"
MANIFEST = "checkpoint.json"


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
class Checkpoint:
    """A committed checkpoint.

    Attributes:
        folder: where it stands; `ControlNetModel.from_pretrained` loads it.
        step: optimizer steps done.
        position: the next global sample index.
        files: hex sha256 by file name.
    """

    folder: Path
    step: int
    position: int
    files: dict[str, str]


def save_checkpoint(
    run: Path, controlnet: ControlNetModel, state: State, *, step: int, position: int
) -> Checkpoint:
    """Commit a checkpoint of `run`, and return it.

    Args:
        run: the run folder.
        controlnet: the trained network, in fp32.
        state: optimizer and scaler.
        step: optimizer steps done.
        position: the next global sample index.
    """
    final = run / "checkpoints" / f"{step:06d}"
    temporary = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a run that was killed while writing
    temporary.mkdir(parents=True)
    controlnet.save_pretrained(temporary, safe_serialization=True)
    torch.save({"optimizer": state.optimizer, "scaler": state.scaler}, temporary / STATE)
    files = {path.name: _sync_and_hash(path) for path in sorted(temporary.iterdir())}
    manifest = {"step": step, "position": position, "files": files}
    write_atomic(str(temporary / MANIFEST), json.dumps(manifest, indent=2).encode())
    temporary.rename(final)
    return Checkpoint(folder=final, step=step, position=position, files=files)


def list_checkpoints(run: Path) -> list[Checkpoint]:
    """Return the committed checkpoints of `run`, by step."""
    manifests = (run / "checkpoints").glob(f"[0-9]*/{MANIFEST}")
    return sorted(map(_read, manifests), key=lambda checkpoint: checkpoint.step)


def _read(manifest: Path) -> Checkpoint:
    content = json.loads(manifest.read_bytes())
    return Checkpoint(folder=manifest.parent, **content)


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


def load_weights(checkpoint: Checkpoint) -> ControlNetModel:
    """Load the network of `checkpoint`, on the CPU, in fp32."""
    return ControlNetModel.from_pretrained(checkpoint.folder, local_files_only=True)


def load_state(checkpoint: Checkpoint) -> State:
    """Load the optimizer and scaler state of `checkpoint`, on the CPU."""
    state = torch.load(checkpoint.folder / STATE, map_location="cpu", weights_only=True)
    return State(optimizer=state["optimizer"], scaler=state["scaler"])


def publish(checkpoint: Checkpoint, run: Path) -> None:
    """Put the network of `checkpoint` into `run` itself, where others load it from."""
    for name in (WEIGHTS, CONFIG):
        temporary = run / f".{name}.tmp"
        shutil.copyfile(checkpoint.folder / name, temporary)
        _sync_and_hash(temporary)
        os.replace(temporary, run / name)


def _sync_and_hash(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return sha256_file(str(path))
