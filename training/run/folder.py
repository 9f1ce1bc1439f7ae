"""The run folder's own file, train.json: what is trained there, so that only the same resumes.

RUN/train.json                                         this module
RUN/held_out.json                                      training/data/held_out.py
RUN/damaged.jsonl                                      training/run/damage.py
RUN/signals/, RUN/plots/                               training/watch
RUN/checkpoints/                                       training/run/checkpoint.py
RUN/logs/                                              TensorBoard
RUN/config.json, diffusion_pytorch_model.safetensors   the finished network, in diffusers' layout
RUN/unet/                                              the UNet, where it learned, likewise
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from catalog.storage import is_temporary, local_path, write_atomic
from training.data.held_out import FILE as HELD_OUT
from training.data.view import SampleView
from training.errors import ResumeMismatch, TrainingError
from training.run.checkpoint import Position, list_checkpoints
from training.run.shared_disk import TOKEN
from training.settings.config import TrainConfig
from training.settings.phases import Trains

SETTINGS = "train.json"

_SAME_TO_RESUME = (
    "condition",
    "method",
    "learning_rate",
    "warmup",
    "optimizer",
    "ema",
    "weight_decay",
    "prompt_dropout",
    "seed",
    "mixed_precision",
    "hint_encoder",
    "start_from",
    "phases",
    "schedule",
    "max_grad_norm",
    "crop",
    "flip",
    "aspect_buckets",
)
_BEFORE = {
    "schedule": "constant",
    "max_grad_norm": 0.0,
    "held_out": 0,
    "crop": None,
    "flip": False,
    "aspect_buckets": False,
    "latents": None,
}
"""What runs did that were begun before there was such a setting."""

_NOT_COMPARED = ("rows", "removed")

_VERSIONS = ("torch", "diffusers", "transformers", "accelerate", "numpy")

Identity = dict[str, Any]
"""What makes a training the one it is; the run may grow longer, move, or change its workers."""


def identify(
    config: TrainConfig,
    *,
    dataset: str,
    view: SampleView,
    removed: int,
    held_out: int,
    base: str,
    latents: str | None,
    processes: int,
) -> Identity:
    """Return the identity of the training that `config` asks for.

    Args:
        config: the settings.
        dataset: fingerprint of the dataset.
        view: the rows that are trained on.
        removed: samples that were taken down from the dataset so far.
        held_out: samples kept out of training.
        base: fingerprint of the base's weights.
        latents: name of those that are trained on; None for the images.
        processes: how many train together.
    """
    return {
        "dataset": dataset,
        "view": view.fingerprint,
        "rows": len(view),
        "removed": removed,
        "held_out": held_out,
        "base": base,
        "latents": latents,
        "samples_per_step": config.batch_size * config.gradient_accumulation * processes,
        **config.model_dump(mode="json", include=set(_SAME_TO_RESUME)),
        **({"schedule": f"cosine over {config.steps}"} if config.schedule == "cosine" else {}),
    }


def run_path(out: str) -> Path:
    """Return the local folder that `out` names.

    Raises:
        TrainingError: `out` is remote, or a folder with something else in it.
    """
    folder = local_path(out)
    if folder is None:
        raise TrainingError(f"out must be on a local disk, got {out!r}: copy the finished folder")
    if folder.exists() and not (folder.is_dir() and _is_ours(folder)):
        raise TrainingError(
            f"out {out!r} holds something else than a run (no {SETTINGS}): name a new folder"
        )
    return folder


def _is_ours(folder: Path) -> bool:
    return (folder / SETTINGS).is_file() or all(
        path.name.startswith(TOKEN) or path.name == HELD_OUT or is_temporary(path.name)
        for path in folder.iterdir()
    )


def as_begun(config: TrainConfig, run: Path) -> TrainConfig:
    """Return settings with what was not asked for as the run in the folder was begun with.

    A run of before there was a setting goes on as it did. Where the two do not go together, the
    settings stay as they are: `check_identity` tells how they differ.
    """
    begun = begun_with(run)
    if begun is None:
        return config
    kept = {name: begun[name] for name in (*_SAME_TO_RESUME, "held_out", "vae") if name in begun}
    try:
        return TrainConfig.model_validate({**kept, **config.model_dump(exclude_unset=True)})
    except ValidationError:
        return config


def latents_begun_with(run: Path) -> str | None:
    """Return the name of the latents that a run began with, "" for none; None for a new run."""
    settings = read_settings(run)
    return None if settings is None else settings["identity"].get("latents") or ""


def begun_with(run: Path) -> dict[str, Any] | None:
    """Return the settings that a run was begun with, by name; None where there is no run yet.

    Settings that there were not yet are what the run did without them.
    """
    settings = read_settings(run)
    return None if settings is None else {**_BEFORE, **settings["config"]}


def check_identity(run: Path, wanted: Identity, position: Position | None) -> None:
    """Compare the training that `run` holds with the one wanted; a new folder holds none.

    Phases that have not begun may be others, and rows may have been taken down.

    Args:
        run: the run folder.
        wanted: of `identify`.
        position: where the run stands; None for a new one.

    Raises:
        ResumeMismatch: they differ; the message names each field with both values.
    """
    settings = read_settings(run)
    if settings is None:
        return
    held = {**_BEFORE, **settings["identity"]}
    differing = [
        name for name in wanted if name not in _NOT_COMPARED and held.get(name) != wanted[name]
    ]
    if "view" in differing and _taken_down(held, wanted):
        differing.remove("view")
    if "phases" in differing and position is not None and _extended(held, wanted, position):
        differing.remove("phases")
    if differing:
        lines = "\n".join(
            f"  {name}: {held.get(name)!r} there, {wanted[name]!r} asked for" for name in differing
        )
        raise ResumeMismatch(
            f"{run} holds another training:\n{lines}\n"
            "Resume it with its own settings (only steps, workers, logging and paths may change), "
            "or name a new folder"
        )


def _taken_down(held: Identity, wanted: Identity) -> bool:
    """Say whether no more rows are missing than were taken down of the same dataset meanwhile."""
    if "rows" not in held or held["dataset"] != wanted["dataset"]:
        return False
    missing = int(held["rows"]) - int(wanted["rows"])
    return 0 < missing <= int(wanted["removed"]) - int(held["removed"])


def _extended(held: Identity, wanted: Identity, position: Position) -> bool:
    """Say whether the phases so far are the same, and the one in hand ends no earlier than now."""
    index = position.phase
    before, after = (list(identity["phases"]) for identity in (held, wanted))
    if len(after) <= index or before[:index] != after[:index]:
        return False
    now, then = dict(before[index]), dict(after[index])
    now.pop("until")
    until = then.pop("until")
    return bool(now == then and (not isinstance(until, int) or until >= position.step))


def read_settings(run: Path) -> dict[str, Any] | None:
    """Return the content of the run's train.json; None where there is none yet."""
    path = run / SETTINGS
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def run_of(folder: Path) -> Path | None:
    """Return the run that a folder is, or that it is a checkpoint of; None where it is neither."""
    for run in (folder, folder.parent.parent):  # RUN, or RUN/checkpoints/000100
        if (run / SETTINGS).is_file():
            return run
    return None


def trained_as(folder: Path) -> Trains:
    """Return what the weights in a run's folder, or a checkpoint's, were trained to connect.

    A folder that is neither holds a ControlNet from elsewhere, which connects all.
    """
    run = run_of(folder)
    if run is None:
        return "full"
    phases = (read_settings(run) or {})["config"]["phases"]
    held = list_checkpoints(run)
    here = [one for one in held if one.folder == folder] or held
    trains: Trains = phases[here[-1].position.trained_phase if here else -1]["trains"]
    return trains


def write_settings(
    run: Path, config: TrainConfig, identity: Identity, *, published_step: int | None
) -> None:
    """Write the run's train.json, atomically.

    Args:
        run: the run folder.
        config: the settings of this command.
        identity: what `check_identity` compares.
        published_step: step of the network that stands in the run folder itself, if one does.
    """
    content = {
        "config": config.model_dump(mode="json"),
        "identity": identity,
        "published_step": published_step,
        "versions": {name: version(name) for name in _VERSIONS},
    }
    write_atomic(str(run / SETTINGS), json.dumps(content, indent=2).encode())
