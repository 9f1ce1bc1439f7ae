"""From the folders of runs to a comparison in a folder.

DIR/compare.json     every figure
DIR/compare.md       the table
DIR/adherence.png    all runs over steps, or over images seen where a step reads different numbers
DIR/grid.png         condition, photograph, and the picture of each run's last probe
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from catalog.dataset.dataset import Dataset
from catalog.png import encode_png
from catalog.storage import write_atomic
from pipeline.compare.comparison import Comparison, compare
from pipeline.compare.pictures import draw_runs
from pipeline.compare.runs import RunRecord, read_runs
from training.watch.run_plots import plot_runs

FILES = ("compare.json", "compare.md", "adherence.png", "grid.png")


def compare_runs(
    folders: Mapping[str, Path], folder: Path, *, dataset: str | None = None, samples: int
) -> Comparison:
    """Compare runs and write table, plot and grid; return the figures.

    Args:
        folders: of the runs, by label.
        folder: to write into; it is made.
        dataset: where the runs' dataset lies now; None for where the first run found it.
        samples: rows of the grid at most.

    Raises:
        UsageError: a folder is no run, or the dataset has none of the samples.
        TrainingError: a run has no probes, or was probed on other samples than the first.
        CatalogError: the dataset is not there.
    """
    runs = read_runs(folders)
    comparison = compare(runs)
    opened = Dataset.open(dataset or runs[0].settings["dataset"])
    written: dict[str, bytes] = {
        "compare.json": json.dumps(asdict(comparison), indent=2).encode() + b"\n",
        "compare.md": comparison.to_markdown().encode(),
        "adherence.png": _plot(runs),
        "grid.png": encode_png(draw_runs(runs, opened, samples)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in written.items():
        write_atomic(str(folder / name), content)
    return comparison


def _plot(runs: list[RunRecord]) -> bytes:
    batches = {run.label: run.samples_per_step for run in runs}
    return plot_runs(
        {run.label: run.folder for run in runs},
        title=f"adherence to the condition, {len(runs[0].references.keys)} held-out samples",
        samples_per_step=batches if len(set(batches.values())) > 1 else None,
    )
