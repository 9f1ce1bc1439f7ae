"""Whether all processes of a run see its folder on one disk, asked before the first step.

The first process alone writes most of a run, and all read it: on nodes with a disk each, the others
would find nothing, or what another run left there.
"""

import time
from pathlib import Path
from uuid import uuid4

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from training.errors import TrainingError

TOKEN = ".seen-by-all-"
"""How the names begin of what may be in a run folder before there is a run."""

_PATIENCE = 10.0  # seconds; a network's file system may show a new file late


def check_shared(accelerator: Accelerator, run: Path) -> None:
    """Check that every process sees what the first one writes into the run folder.

    All processes call this, before they read there, and all of them raise.

    Args:
        accelerator: of the run.
        run: the run folder; the first process makes it.

    Raises:
        TrainingError: some do not see it.
    """
    if accelerator.num_processes == 1:
        return
    token = run / _agreed_name()
    if accelerator.is_main_process:
        run.mkdir(parents=True, exist_ok=True)
        token.touch()
    accelerator.wait_for_everyone()
    here = torch.tensor(float(_appears(token)), device=accelerator.device)
    seeing = int(accelerator.reduce(here, reduction="sum"))
    if accelerator.is_main_process:
        for path in run.glob(f"{TOKEN}*"):
            path.unlink()
    if seeing < accelerator.num_processes:
        raise TrainingError(
            f"{accelerator.num_processes - seeing} of {accelerator.num_processes} processes do not "
            f"see what the first one wrote into {run}: on several nodes, out must be on a disk "
            "that all of them share (a network's file system, at the same path); name such a "
            "folder, or train on one node"
        )


def _agreed_name() -> str:
    """Return a name that no earlier run can have left, the same in every process."""
    name = [TOKEN + uuid4().hex]
    broadcast_object_list(name)
    return name[0]


def _appears(path: Path) -> bool:
    end = time.monotonic() + _PATIENCE
    while not path.is_file():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
