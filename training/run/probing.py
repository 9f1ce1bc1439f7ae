"""Probes of a run, as the loop takes them: when, with which weights, and what follows.

The first process measures, the others wait for what it says. A probe changes nothing of the
training: its draws are its own, and the networks are as they were behind it. One that fails is told
and left out.
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from catalog.errors import CatalogError
from detectors.base import Spec
from detectors.errors import DetectorError
from training.data.view import SampleView
from training.errors import TrainingError
from training.model.objective import Inputs, denoising_loss
from training.run.session import Session, Trained
from training.sample.for_probes import controlled
from training.watch.probe import RunProbe, prepare_run_probe
from training.watch.signals import ProbeRecord, read_references
from training.watch.trackers import show_probe

_log = logging.getLogger(__name__)

_BATCH = 4  # pictures made at once, beside a training that may fill the device


class Probing:
    """Asks, at the steps of a run, whether it obeys its condition."""

    def __init__(self, session: Session, probe: RunProbe | None) -> None:
        """Take the probe of the first process; None in the others."""
        self._probe = probe
        self._config = session.config
        self._converged = False

    def due(self, step: int, last: int) -> bool:
        """Say whether there is a probe after `step`, of a phase that ends after `last`."""
        return step % self._config.probe_every == 0 or step == min(last, self._config.steps)

    def measure(self, session: Session, trained: Trained, step: int) -> bool:
        """Probe after `step`; return whether the run has converged in the phase in hand.

        All processes call this.
        """
        found = False
        if self._probe is not None:
            try:
                record = self._measure(self._probe, session, trained, step)
            except Exception as error:  # it watches the training, and must not end it
                _log.warning("the probe after step %d failed and is left out: %s", step, error)
            else:
                _tell(session, record)
                convergence = self._probe.convergence
                found = convergence is not None and convergence.step > session.phase_begun
        flag = torch.tensor(float(found), device=session.accelerator.device)
        return bool(session.accelerator.reduce(flag, reduction="sum") > 0)

    def _measure(
        self, probe: RunProbe, session: Session, trained: Trained, step: int
    ) -> ProbeRecord:
        accelerator, config = session.accelerator, self._config
        denoiser = accelerator.unwrap_model(trained.denoiser)
        sample = controlled(
            session.base, denoiser, steps=config.probe_steps, guidance_scale=config.probe_guidance
        )

        def loss(inputs: Inputs) -> torch.Tensor:
            return denoising_loss(session.base, denoiser, inputs)

        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(accelerator.autocast())
            stack.enter_context(_for_inference(denoiser))
            if trained.average is not None:
                stack.enter_context(trained.average.in_place(denoiser))
            return probe.measure(step, sample, loss, batch_size=_BATCH)


def open_probing(session: Session, held_out: SampleView, spec: Spec | None) -> Probing | None:
    """Return the probes of a run; None where it has none.

    Args:
        session: of the run, with the base on the device.
        held_out: the rows to make pictures of.
        spec: the detector that made the condition; None where nobody knows it.

    Raises:
        TrainingError: a phase waits for the convergence, which nothing would find.
    """
    config, probe = session.config, None
    why = None
    if not config.probe_every or not len(held_out):
        why = "nothing is held out" if config.probe_every else "probe_every is 0"
    elif spec is None:
        why = f"the detector of {config.condition} is not known"
    elif session.accelerator.is_main_process:
        try:
            probe = prepare_run_probe(
                session.run,
                session.base,
                held_out,
                spec,
                seed=config.seed,
                count=config.probe_samples,
                steps=config.probe_steps,
                guidance_scale=config.probe_guidance,
                batch_size=_BATCH,
            )
            probe.resume(session.start.step)
        except (TrainingError, DetectorError, CatalogError) as error:
            why = str(error)
        except Exception as error:  # it watches the training, and must not end it
            _log.warning("probes could not be prepared", exc_info=True)
            why = f"{type(error).__name__}: {error}"
    if why is not None:
        _log.info("no probes: %s", why)
    here = torch.tensor(float(why is None), device=session.accelerator.device)
    if float(session.accelerator.reduce(here, reduction="mean")) == 1:
        return Probing(session, probe)
    if any(phase.until == "converged" for phase in config.phases):
        why = why or "the first process could not prepare them, and says why"
        raise TrainingError(f"phases wait until converged, but there are no probes: {why}")
    return None


def _tell(session: Session, record: ProbeRecord) -> None:
    gap = "" if record.condition_gap is None else f", condition gap {record.condition_gap:.4f}"
    _log.info(
        "probe after step %d: adherence %.3f, %.2f of the way from no control to the photographs%s",
        record.step,
        record.adherence,
        record.normalised,
        gap,
    )
    show_probe(session.run, record, read_references(session.run))


@contextmanager
def _for_inference(network: nn.Module) -> Iterator[None]:
    """Put a network into eval mode for the block, each of its modules back behind it."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
