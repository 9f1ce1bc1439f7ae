"""What an ablation is checked for before its first step: the same samples, and enough of them."""

from collections.abc import Iterator, Mapping

from catalog.dataset.dataset import Dataset
from pipeline.errors import UsageError
from pipeline.recipe.made_by import condition_spec
from training.data.held_out import choose_held_out, held_out_view
from training.measure.redetect import Redetector
from training.settings.config import TrainConfig


def check_probes(dataset: Dataset, config: TrainConfig) -> None:
    """Check that the runs of an ablation will be probed.

    Raises:
        UsageError: the settings ask for no probes, or nothing is held out.
        DetectorError: the condition's network is not here.
        DataError: nothing detects this condition in a picture.
    """
    if not config.probe_every:
        raise UsageError("ablate compares by probes: --probe-every must not be 0")
    if not choose_held_out(dataset.view(snapshot=config.snapshot).keys(), config.held_out):
        raise UsageError(
            f"ablate compares on held-out samples, and of {dataset.sample_count():,} none is "
            "held out: give --held-out N"
        )
    Redetector(condition_spec(dataset, config.condition))


def short_budgets(dataset: Dataset, configs: Mapping[str, TrainConfig]) -> Iterator[str]:
    """Tell, in a line each, of runs that will not see all their rows once.

    Args:
        dataset: of the runs.
        configs: settings by label.

    Raises:
        CatalogError: there is no such subset.
        DataError: a run has nothing to train on beside what is held out.
    """
    for label, config in configs.items():
        whole = dataset.view(snapshot=config.snapshot)
        view = dataset.view(config.subset, config.snapshot)
        keys = choose_held_out(whole.keys(), config.held_out)
        rows = len(held_out_view(whole, view, keys).training)
        seen = config.steps * config.batch_size * config.gradient_accumulation
        if seen < rows:
            yield f"{label}: {seen:,} images are less than one epoch of its {rows:,} rows"
