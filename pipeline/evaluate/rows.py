"""The rows of a dataset that a run did not see."""

from pathlib import Path

from catalog.dataset.dataset import Dataset
from pipeline.errors import UsageError
from training.data.held_out import held_out_view, read_held_out
from training.data.view import SampleView
from training.run.folder import read_settings, run_of


def held_out_rows(folder: Path, dataset: Dataset) -> SampleView:
    """Return the rows of a dataset that a run keeps out of its training.

    Args:
        folder: of the run, or of one of its checkpoints.
        dataset: where they are found; whatever it has gained since. Those of a run that was trained
            on a snapshot are that snapshot's.

    Raises:
        UsageError: the run held nothing out, or nothing of this dataset.
        DatasetError: the dataset has no such snapshot any more.
    """
    run = run_of(folder) or folder
    keys = read_held_out(run)
    if not keys:
        raise UsageError(
            f"{folder} held nothing out of training: train with --held-out N, or measure on "
            "a dataset that it did not see with --split all"
        )
    settings = read_settings(run) or {"config": {}}
    whole = dataset.view(snapshot=settings["config"].get("snapshot"))
    rows = held_out_view(whole, whole, keys).held_out
    if not len(rows):
        raise UsageError(
            f"none of the {len(keys)} samples that {folder} held out is in {dataset.uri}: name "
            "the dataset that it was trained on, or measure on this one with --split all"
        )
    return rows
