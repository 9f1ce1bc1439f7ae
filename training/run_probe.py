"""The probes of one run: scores, condition gap, pictures and plots in its folder.

RUN/signals/...                             numbers, see `training.probe_log`
RUN/signals/pictures/000400/<key>.png       what was made at step 400, of the first samples
RUN/signals/pictures/no_control/<key>.png   the same prompts and noise without control
RUN/plots/adherence.png, ...                see `training.run_plots`
RUN/plots/progress.png                      the pictures in columns, from the first step to the last
"""

import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch

from catalog.images import decode_image, encode_png
from catalog.storage import write_atomic
from training.adherence import AdherenceProbe, References
from training.condition_gap import condition_gap
from training.controlnet import Base
from training.convergence import Convergence
from training.grid import draw_grid, enlarged
from training.loss import Inputs
from training.probe_log import (
    SIGNALS,
    ProbeRecord,
    ReferenceRecord,
    losses,
    probes,
    read_references,
    write_references,
)
from training.run_plots import PLOTS, run_convergence, write_run_plots
from training.samplers import Image, Sampler

PICTURES = "pictures"
NO_CONTROL = "no_control"

SHOWN = 6
"""Samples whose pictures are kept."""

COLUMNS = 6
"""Steps in the grid of progress."""


class RunProbe:
    """Measures a run as it goes on; on the main process alone."""

    def __init__(
        self, run: Path, probe: AdherenceProbe, references: References, gap: Inputs | None = None
    ) -> None:
        """Prepare; `open_run_probe` does so for a run, and measures the references.

        Args:
            run: the run folder.
            probe: held-out samples.
            references: what their scores stand beside.
            gap: inputs for the condition gap; None leaves it out.
        """
        self.references = references
        self._run = run
        self._probe = probe
        self._gap = gap
        self._probes = probes(run)

    @property
    def convergence(self) -> Convergence | None:
        """Where the run suddenly began to obey, by its probes so far; None where it did not."""
        return run_convergence(self._run)

    def resume(self, step: int) -> None:
        """Forget what an interrupted process recorded behind the checkpoint of `step`."""
        self._probes.forget_after(step)
        losses(self._run).forget_after(step)
        for folder in (self._run / SIGNALS / PICTURES).glob("[0-9]*"):
            if int(folder.name) > step:
                shutil.rmtree(folder)

    def measure(
        self,
        step: int,
        sample: Sampler,
        loss: Callable[[Inputs], torch.Tensor],
        *,
        batch_size: int = 8,
    ) -> ProbeRecord:
        """Probe the networks after `step` steps, and draw the plots anew.

        A step that has been probed is not probed again.

        Args:
            step: optimizer steps done.
            sample: makes pictures with the networks as they are.
            loss: mean loss of inputs, with the networks as they are.
            batch_size: pictures made at once.
        """
        known = {record.step: record for record in self._probes.read()}
        if step in known:
            return known[step]
        score = self._probe.measure(sample, batch_size=batch_size)
        record = ProbeRecord(
            step=step,
            per_sample=score.per_sample,
            adherence=score.mean,
            normalised=self.references.normalised(score.mean),
            condition_gap=None if self._gap is None else condition_gap(loss, self._gap),
        )
        _keep(self._run, f"{step:06d}", self._probe, score.images)
        self._probes.append(record)
        write_run_plots(self._run)
        self.draw_progress()
        return record

    def draw_progress(self) -> Path:
        """Draw conditions, pictures without control and those of some steps; return the PNG."""
        folder = self._run / SIGNALS / PICTURES
        records = {record.step: record for record in self._probes.read()}
        steps = choose_steps(sorted(records), self.convergence)
        names = [NO_CONTROL, *(f"{step:06d}" for step in steps)]
        samples = self._probe.samples[:SHOWN]
        cells = [
            enlarged([sample.hint, *(_kept(folder / name / f"{sample.key}.png") for name in names)])
            for sample in samples
        ]
        scores = [f"{self.references.baseline:.2f}"]
        scores += [f"{records[step].adherence:.2f}" for step in steps]
        titles = [f"no control {scores[0]}"]
        titles += [f"step {step:,}: {score}" for step, score in zip(steps, scores[1:], strict=True)]
        captions = [sample.caption or "(no prompt)" for sample in samples]
        grid = draw_grid(cells, columns=["condition", *titles], rows=captions)
        path = self._run / PLOTS / "progress.png"
        write_atomic(str(path), encode_png(grid))
        return path


def open_run_probe(
    run: Path,
    probe: AdherenceProbe,
    uncontrolled: Sampler,
    base: Base,
    *,
    gap: Inputs | None = None,
    batch_size: int = 8,
) -> RunProbe:
    """Return the probe of a run; what its scores stand beside is measured for a new run only.

    Args:
        run: the run folder.
        probe: held-out samples.
        uncontrolled: makes pictures by prompt and seed alone.
        base: whose autoencoder the photographs go through.
        gap: inputs for the condition gap; None leaves it out.
        batch_size: pictures made at once.

    Raises:
        DataError: the photographs score no better than pictures without control.
    """
    keys = tuple(sample.key for sample in probe.samples)
    known = read_references(run)
    if known is not None and known.keys == keys and known.metric == probe.metric.name:
        return RunProbe(run, probe, known.references, gap)
    references, baseline = probe.references(uncontrolled, base, batch_size=batch_size)
    references.normalised(references.baseline)  # refuses samples that tell nothing, before training
    _keep(run, NO_CONTROL, probe, baseline.images)
    record = ReferenceRecord(
        metric=probe.metric.name,
        higher_is_better=probe.metric.higher_is_better,
        keys=keys,
        references=references,
    )
    write_references(run, record)
    return RunProbe(run, probe, references, gap)


def choose_steps(
    steps: Sequence[int], convergence: Convergence | None, count: int = COLUMNS
) -> list[int]:
    """Choose up to `count` steps to show, ascending.

    The first, the last and those around the convergence are among them, the others spread evenly.

    Args:
        steps: those that there are, ascending.
        convergence: where the run began to obey.
        count: at least 4.
    """
    if len(steps) <= count:
        return list(steps)
    chosen = {steps[0], steps[-1]}
    if convergence is not None:
        chosen |= {convergence.before, convergence.step}
    while len(chosen) < count:  # where the gap is widest, its middle
        places = sorted(steps.index(step) for step in chosen)
        gaps = [(high - low, low) for low, high in pairwise(places)]
        width, low = max(gaps)
        chosen.add(steps[low + width // 2])
    return sorted(chosen)


def _keep(run: Path, name: str, probe: AdherenceProbe, images: Sequence[Image]) -> None:
    folder = run / SIGNALS / PICTURES / name
    folder.mkdir(parents=True, exist_ok=True)
    for sample, image in list(zip(probe.samples, images, strict=True))[:SHOWN]:
        write_atomic(str(folder / f"{sample.key}.png"), encode_png(image))


def _kept(path: Path) -> Image:
    return decode_image(path.read_bytes())
