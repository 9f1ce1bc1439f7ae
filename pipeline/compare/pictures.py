"""The last probes' pictures of several runs, in columns (paper, Fig. 20 and 22)."""

from collections.abc import Sequence

from catalog.dataset.dataset import Dataset
from catalog.images import Image, decode_image
from catalog.publish.grid import draw_grid, enlarged
from catalog.sample import Sample
from pipeline.compare.runs import RunRecord
from pipeline.errors import UsageError
from training.data.held_out import held_out_view
from training.watch.step_pictures import SHOWN, read_picture


def draw_runs(runs: Sequence[RunRecord], dataset: Dataset, count: int) -> Image:
    """Draw condition, photograph and each run's last picture of the first held-out samples.

    Below each picture stands its own adherence.

    Args:
        runs: probed on the same samples.
        dataset: that has them.
        count: how many; the runs keep pictures of the first six.

    Raises:
        UsageError: the dataset has none of them.
        TrainingError: a run lacks a picture.
    """
    samples = _samples(runs[0], dataset, min(count, SHOWN))
    keys = runs[0].references.keys
    cells = [
        enlarged(
            [
                decode_image(sample.conditions[runs[0].settings["condition"]]),
                decode_image(sample.image),
                *(read_picture(run.folder, run.probes[-1].step, sample.key) for run in runs),
            ]
        )
        for sample in samples
    ]
    scores = [[run.probes[-1].per_sample[keys.index(one.key)] for run in runs] for one in samples]
    titles = [f"{run.label}, step {run.probes[-1].step:,}" for run in runs]
    return draw_grid(
        cells,
        columns=["condition", "photograph", *titles],
        rows=[sample.caption or "(no prompt)" for sample in samples],
        notes=[["", "", *(f"{score:.2f}" for score in row)] for row in scores],
    )


def _samples(run: RunRecord, dataset: Dataset, count: int) -> list[Sample]:
    """Read the first samples of the probes; those that were taken down are passed over."""
    whole = dataset.view(snapshot=run.settings.get("snapshot"))
    rows = held_out_view(whole, whole, run.references.keys[:count]).held_out
    if not len(rows):
        raise UsageError(
            f"{dataset.uri} has none of the samples that {run.label} was probed on: name the "
            "dataset that it was trained on with --dataset"
        )
    return [rows.read(row) for row in range(len(rows))]
