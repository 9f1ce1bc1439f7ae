"""The figures of runs beside each other, as a table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.compare.runs import RunRecord, differing_settings
from training.watch.run_plots import run_convergence


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How one run does, by its probes.

    Attributes:
        label: of the run.
        method: controlnet or concat.
        settings: those that the runs differ in, as text.
        rows: it is trained on; None where an old run did not say.
        steps: optimizer steps done at its last probe.
        images_seen: samples that those steps read.
        first: adherence at its first probe, in the metric's unit.
        best: the best of all.
        best_step: of which probe.
        last: adherence at its last probe.
        normalised: the last on the scale of 0, no control, to 1, the photographs.
        convergence_step: the first probe behind the sudden convergence; None without one.
        convergence_images: samples read by then.
        condition_gap: at the last probe; None where not measured.
        images_per_second: trained on, the median; None where not recorded.
    """

    label: str
    method: str
    settings: Mapping[str, str]
    rows: int | None
    steps: int
    images_seen: int
    first: float
    best: float
    best_step: int
    last: float
    normalised: float
    convergence_step: int | None
    convergence_images: int | None
    condition_gap: float | None
    images_per_second: float | None

    def cells(self) -> list[str]:
        """Return the row as text, in the order of `Comparison.header`."""
        gap, rate = self.condition_gap, self.images_per_second
        return [
            self.label,
            self.method,
            *self.settings.values(),
            _count(self.rows),
            _count(self.steps),
            _count(self.images_seen),
            f"{self.first:.3f}",
            f"{self.best:.3f} (step {self.best_step:,})",
            f"{self.last:.3f}",
            f"{self.normalised:.3f}",
            _count(self.convergence_step),
            _count(self.convergence_images),
            "-" if gap is None else f"{gap:.4f}",
            "-" if rate is None else f"{rate:.1f}",
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs that were probed on the same held-out samples.

    Attributes:
        metric: of adherence, with its unit.
        higher_is_better: whether obedience raises it.
        keys: of the samples.
        baseline: score without control, of the first run.
        real: score of the photographs, of the first run.
        runs: a row each.
        notes: what to bear in mind.
    """

    metric: str
    higher_is_better: bool
    keys: tuple[str, ...]
    baseline: float
    real: float
    runs: tuple[Row, ...]
    notes: tuple[str, ...]

    def header(self) -> list[str]:
        """Return what the cells of a row are."""
        return [
            "run",
            "method",
            *self.runs[0].settings,
            "rows trained on",
            "steps",
            "images seen",
            "first adherence",
            "best",
            "last",
            "last, normalised",
            "sudden convergence at step",
            "images seen by then",
            "condition gap",
            "images/s",
        ]

    def about(self) -> str:
        """Return what the scores are, in one line."""
        better = "higher" if self.higher_is_better else "lower"
        return (
            f"Adherence: {self.metric}, {better} is better, on {len(self.keys)} held-out samples: "
            f"{self.baseline:.3f} without control (normalised 0), "
            f"{self.real:.3f} for the photographs (1)."
        )

    def to_markdown(self) -> str:
        """Return the table, with what it means and the notes below."""
        header = self.header()
        text = 2 + len(self.runs[0].settings)
        rules = ["---"] * text + ["---:"] * (len(header) - text)
        table = [header, rules, *(row.cells() for row in self.runs)]
        lines = ["# Runs compared", "", *(f"| {' | '.join(row)} |" for row in table)]
        return "\n".join([*lines, *(f"\n{line}" for line in (self.about(), *self.notes)), ""])


def compare(runs: Sequence[RunRecord]) -> Comparison:
    """Put runs beside each other; `read_runs` has checked that they can be."""
    differing = differing_settings(runs)
    first = runs[0].references
    return Comparison(
        metric=first.metric,
        higher_is_better=first.higher_is_better,
        keys=first.keys,
        baseline=first.references.baseline,
        real=first.references.real,
        runs=tuple(
            _row(run, {name: values[at] for name, values in differing.items()})
            for at, run in enumerate(runs)
        ),
        notes=tuple(_notes(runs)),
    )


def _row(run: RunRecord, settings: Mapping[str, str]) -> Row:
    best = max(run.probes, key=lambda probe: probe.normalised)
    last, a_step = run.probes[-1], run.samples_per_step
    found = run_convergence(run.folder)
    return Row(
        label=run.label,
        method=run.settings["method"],
        settings=settings,
        rows=run.rows,
        steps=last.step,
        images_seen=last.step * a_step,
        first=run.probes[0].adherence,
        best=best.adherence,
        best_step=best.step,
        last=last.adherence,
        normalised=last.normalised,
        convergence_step=None if found is None else found.step,
        convergence_images=None if found is None else found.step * a_step,
        condition_gap=last.condition_gap,
        images_per_second=run.images_per_second,
    )


def _notes(runs: Sequence[RunRecord]) -> Iterator[str]:
    for run in runs:
        step, asked = run.probes[-1].step, run.settings["steps"]
        if step < asked:
            yield f"{run.label} is probed up to step {step:,} of {asked:,}."
        if run.rows is not None and step * run.samples_per_step < run.rows:
            yield (
                f"{run.label} has seen {step * run.samples_per_step:,} images, less than one epoch "
                f"of its {run.rows:,} rows."
            )
    levels = {run.label: run.references.references.baseline for run in runs}
    if len(set(levels.values())) > 1:
        told = ", ".join(f"{level:.3f} ({label})" for label, level in levels.items())
        yield (
            f"Without control the runs score {told}: another base, seed or sampling. Compare the "
            f"normalised scores; the plot has the levels of {runs[0].label}."
        )


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
