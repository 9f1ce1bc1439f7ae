"""A run's signals as plots in its folder, and several runs on one plot."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from catalog.storage import write_atomic
from training.errors import TrainingError
from training.measure.convergence import Convergence, find_convergence
from training.watch.plots import STEPS, Curve, plot_adherence, plot_series
from training.watch.signals import ReferenceRecord, losses, probes, read_references

PLOTS = "plots"


def run_convergence(run: Path) -> Convergence | None:
    """Return where a run suddenly began to obey, by its probes so far; None where it did not."""
    records = probes(run).read()
    return find_convergence(
        [record.step for record in records], [record.normalised for record in records]
    )


def write_run_plots(run: Path) -> list[Path]:
    """Draw what a run has recorded so far as RUN/plots/*.png; return the files, newly written."""
    drawn = {"loss": _loss(run), "condition_gap": _gap(run), "adherence": _adherence(run)}
    folder = run / PLOTS
    folder.mkdir(exist_ok=True)
    written = []
    for name, png in drawn.items():
        if png is not None:
            written.append(folder / f"{name}.png")
            write_atomic(str(written[-1]), png)
    return written


def plot_runs(
    runs: Mapping[str, Path], *, title: str = "", samples_per_step: Mapping[str, int] | None = None
) -> bytes:
    """Draw the adherence of several runs, by label, over their steps; return a PNG.

    Args:
        runs: folders by label.
        title: over the plot.
        samples_per_step: by label, where the axis is to count images seen in place of steps.

    Raises:
        TrainingError: a run has no probes, or was probed on other samples than the first.
    """
    first = common_references(runs)[0]
    factors = samples_per_step or dict.fromkeys(runs, 1)
    return plot_adherence(
        [_curve(label, run, factors[label]) for label, run in runs.items()],
        metric=first.metric,
        references=first.references,
        title=title,
        unit="images seen" if samples_per_step else STEPS,
    )


def common_references(runs: Mapping[str, Path]) -> list[ReferenceRecord]:
    """Return what the probes of runs on the same samples are read by, one a run.

    Args:
        runs: folders by label.

    Raises:
        TrainingError: a run has no probes, or was probed on other samples than the first.
    """
    references = {label: _references(run) for label, run in runs.items()}
    first = next(iter(references.values()))
    for label, record in references.items():
        if (record.metric, record.keys) != (first.metric, first.keys):
            raise TrainingError(
                f"{label} was probed on other held-out samples than {next(iter(runs))}: runs that "
                "are compared need the same ones"
            )
    return list(references.values())


def _references(run: Path) -> ReferenceRecord:
    record = read_references(run)
    if record is None or not probes(run).read():
        raise TrainingError(f"{run} has no probes of adherence: train it with held-out samples")
    return record


def _curve(label: str, run: Path, factor: int = 1) -> Curve:
    """Return a run's adherence over its steps, each counted `factor` times."""
    records, found = probes(run).read(), run_convergence(run)
    if found is not None:
        found = replace(found, before=found.before * factor, step=found.step * factor)
    return Curve(
        label=label,
        steps=[record.step * factor for record in records],
        values=[record.adherence for record in records],
        convergence=found,
    )


def _adherence(run: Path) -> bytes | None:
    record = read_references(run)
    if record is None or not probes(run).read():
        return None
    return plot_adherence(
        [_curve(run.name, run)],
        metric=record.metric,
        references=record.references,
        title=f"{run.name}: adherence to the condition, {len(record.keys)} held-out samples",
    )


def _gap(run: Path) -> bytes | None:
    gaps = {one.step: one.condition_gap for one in probes(run).read()}
    known = {step: gap for step, gap in gaps.items() if gap is not None}
    if not known:
        return None
    curve = Curve(
        label=run.name,
        steps=list(known),
        values=list(known.values()),
        convergence=run_convergence(run),
    )
    quantity = "loss with shuffled less true conditions"
    return plot_series([curve], quantity=quantity, title=f"{run.name}: condition gap")


def _loss(run: Path) -> bytes | None:
    records = losses(run).read()
    if not records:
        return None
    curve = Curve(
        label=run.name,
        steps=[record.step for record in records],
        values=[record.loss for record in records],
        convergence=run_convergence(run),
    )
    return plot_series([curve], quantity="loss (mean squared error)", title=f"{run.name}: loss")
