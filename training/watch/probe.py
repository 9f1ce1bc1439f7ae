"""The probes of one run: scores, condition gap, pictures and plots in its folder.

Numbers are kept by `training.watch.signals`, pictures by `training.watch.step_pictures`; plots are
drawn anew with each probe by `training.watch.run_plots`.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import torch

from detectors.base import Spec
from detectors.graph import by_size
from training.data.view import SampleView
from training.measure.adherence import AdherenceProbe, References, probe_samples
from training.measure.condition_gap import condition_gap, gap_inputs
from training.measure.convergence import Convergence
from training.measure.redetect import Redetector
from training.model.base import Base
from training.model.objective import Inputs
from training.sample.for_probes import Sampler, uncontrolled
from training.sample.sampler import GUIDANCE_SCALE, STEPS, Sampling
from training.watch.run_plots import run_convergence, write_run_plots
from training.watch.signals import (
    ProbeRecord,
    ReferenceRecord,
    probes,
    read_references,
    set_aside,
    write_references,
)
from training.watch.step_pictures import draw_step_pictures, forget_pictures, keep_pictures

_log = logging.getLogger(__name__)


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
        forget_pictures(self._run, step)

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
            batch_size: pictures made at once, and rows of the gap; fewer where the device's
                memory does not suffice.
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
            condition_gap=None
            if self._gap is None
            else condition_gap(loss, self._gap, batch_size=batch_size),
        )
        keep_pictures(self._run, step, self._probe.samples, score.images)
        self._probes.append(record)
        write_run_plots(self._run)
        draw_step_pictures(
            self._run, self._probe.samples, self._probes.read(), self.references, self.convergence
        )
        return record


def prepare_run_probe(
    run: Path,
    base: Base,
    view: SampleView,
    spec: Spec,
    *,
    seed: int = 0,
    count: int = 16,
    steps: int = STEPS,
    guidance_scale: float = GUIDANCE_SCALE,
    batch_size: int = 8,
) -> RunProbe:
    """Return the probe of a run from its settings; see `open_run_probe`.

    The condition gap is left out where the samples are not all of one size.

    Args:
        run: the run folder.
        base: on the device to use, which is the detector's, too.
        view: held-out rows.
        spec: the detector that made the condition, out of the dataset's recipe.
        seed: of the noise.
        count: samples at most, the view's first.
        steps: of DDIM.
        guidance_scale: strength of classifier-free guidance.
        batch_size: pictures made at once.

    Raises:
        DetectorError: the condition's network is not here.
        DataError: there are no samples, or none that can show adherence.
    """
    redetector = Redetector(spec, device=str(base.vae.device))
    samples = probe_samples(view, spec.condition, redetector, count=count)
    probe = AdherenceProbe(samples, redetector, seed=seed)
    comparable = len(samples) > 1 and len(by_size([sample.image for sample in samples])) == 1
    return open_run_probe(
        run,
        probe,
        uncontrolled(base, steps=steps, guidance_scale=guidance_scale),
        base,
        gap=gap_inputs(base, samples, seed=seed) if comparable else None,
        sampling=Sampling(steps=steps, guidance_scale=guidance_scale),
        batch_size=batch_size,
    )


def open_run_probe(
    run: Path,
    probe: AdherenceProbe,
    uncontrolled: Sampler,
    base: Base,
    *,
    gap: Inputs | None = None,
    sampling: Sampling | None = None,
    batch_size: int = 8,
) -> RunProbe:
    """Return the probe of a run; what its scores stand beside is measured for a new run only.

    A run that was probed otherwise, on other samples, by another metric or sampling, has its probes
    set aside: one curve is of one measure.

    Args:
        run: the run folder.
        probe: held-out samples.
        uncontrolled: makes pictures by prompt and seed alone.
        base: whose autoencoder the photographs go through.
        gap: inputs for the condition gap; None leaves it out.
        sampling: how the pictures are made; None where nobody knows.
        batch_size: pictures made at once.

    Raises:
        DataError: the photographs score no better than pictures without control.
    """
    known = read_references(run)
    if known is not None and _is_of(known, probe, sampling):
        return RunProbe(run, probe, known.references, gap)
    references, baseline = probe.references(uncontrolled, base, batch_size=batch_size)
    references.normalised(references.baseline)  # refuses samples that tell nothing, before training
    earlier = set_aside(run)
    if earlier is not None:
        _log.warning("%s was probed otherwise so far: those probes are in %s now", run, earlier)
    keep_pictures(run, None, probe.samples, baseline.images)
    record = ReferenceRecord(
        metric=probe.metric.name,
        higher_is_better=probe.metric.higher_is_better,
        keys=_keys(probe),
        references=references,
        steps=None if sampling is None else sampling.steps,
        guidance_scale=None if sampling is None else sampling.guidance_scale,
    )
    write_references(run, record)
    return RunProbe(run, probe, references, gap)


def _keys(probe: AdherenceProbe) -> tuple[str, ...]:
    return tuple(sample.key for sample in probe.samples)


def _is_of(known: ReferenceRecord, probe: AdherenceProbe, sampling: Sampling | None) -> bool:
    """Say whether references are those of a probe; what either does not tell is taken as equal."""
    if (known.keys, known.metric) != (_keys(probe), probe.metric.name):
        return False
    if sampling is None or known.steps is None:
        return True
    asked = (sampling.steps, sampling.guidance_scale)
    return (known.steps, known.guidance_scale) == asked
