"""A run or a checkpoint into a folder of its own: weights, card, pictures; nothing else."""

import shutil
from pathlib import Path

from catalog import storage
from catalog.dataset.dataset import Dataset
from pipeline.errors import UsageError
from pipeline.export.model_card import MADE_BY, Subject, model_card
from pipeline.recipe.made_by import condition_spec
from training.model.denoiser import UNET
from training.run.checkpoint import CONFIG, WEIGHTS, list_checkpoints, publish, verify
from training.run.folder import SETTINGS, read_settings, run_of
from training.watch.run_plots import PLOTS

CARD = "README.md"

_NETWORKS = (CONFIG, WEIGHTS, f"{UNET}/{CONFIG}", f"{UNET}/{WEIGHTS}")
_PICTURES = {
    "progress.png": "Condition, picture without control, and pictures from step to step",
    "adherence.png": "Adherence to the condition over the training",
}


def export(folder: Path, out: Path, *, dataset: str | None = None) -> list[Path]:
    """Write what others need of a run; the same again writes the same.

    Args:
        folder: of a run, or of one of its checkpoints.
        out: a new folder, or one that this made before.
        dataset: where the run's dataset lies now; None for where it lay.

    Returns:
        The files, the card first.

    Raises:
        UsageError: there is no such run or checkpoint, or `out` holds something else.
        CatalogError: the dataset is not there.
    """
    run = run_of(folder)
    settings = None if run is None else read_settings(run)
    if run is None or settings is None:
        raise UsageError(
            f"{folder} is no run: neither it nor the folder of its checkpoints has a {SETTINGS}"
        )
    checkpoints = list_checkpoints(run)
    chosen = next((one for one in checkpoints if one.folder == folder), None)
    if chosen is None and folder != run:
        raise UsageError(f"{folder} is no checkpoint of {run}")
    chosen = chosen or checkpoints[-1]
    _check_free(out)
    verify(chosen)
    opened = Dataset.open(dataset or settings["config"]["dataset"])
    spec = condition_spec(opened, settings["config"]["condition"])
    out.mkdir(parents=True, exist_ok=True)
    publish(chosen, out)
    written = [out / name for name in _NETWORKS if (out / name).is_file()]
    pictures = {}
    for name, words in _PICTURES.items():
        if (run / PLOTS / name).is_file():
            shutil.copyfile(run / PLOTS / name, out / name)
            pictures[name] = words
            written.append(out / name)
    subject = Subject(
        run=run,
        step=chosen.step,
        dataset=opened,
        spec=spec,
        unet=(out / UNET / CONFIG).is_file(),
        pictures=pictures,
    )
    storage.write_atomic(str(out / CARD), model_card(subject).encode())
    return [out / CARD, *written]


def _check_free(out: Path) -> None:
    """Let a folder be filled that is empty, or that an export filled."""
    card = out / CARD
    ours = card.is_file() and MADE_BY in card.read_text(encoding="utf-8", errors="replace")
    if out.exists() and not (out.is_dir() and (ours or not any(out.iterdir()))):
        raise UsageError(f"--out {out} holds something else: name a new folder")
