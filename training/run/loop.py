"""The training loop (paper 3.3): what a phase connects learns, the rest is locked."""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from accelerate.utils import gather_object

from catalog.dataset import tombstones
from catalog.dataset.dataset import TO_READ, Dataset
from catalog.dataset.latents import find_latents
from detectors.base import Spec
from training.data.loader import Batch, IndexBatches, load_batches
from training.data.pixels import as_signed, as_unit
from training.data.reading import Damage
from training.errors import DivergedError
from training.model.base import Base
from training.model.objective import Inputs, denoising_loss, draw
from training.model.text import Text
from training.run.probing import Probing, open_probing
from training.run.session import Rows, Session, Trained, finish, load_trained, open_session, save
from training.run.stopping import StopRequest
from training.settings.config import TrainConfig
from training.settings.phases import last_step
from training.watch.reports import (
    Report,
    StepReport,
    console_report,
    file_report,
    tensorboard_report,
)
from training.watch.trackers import LOGS, wandb_mirror

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What a command did.

    Attributes:
        folder: the run folder; `ControlNetModel.from_pretrained` loads it.
        steps: optimizer steps that the run has now.
        resumed_from: step of the checkpoint it went on from; None for a new run.
        steps_done: optimizer steps that this command did; 0 where all were done already.
        loss: mean over the last step's samples; None where no step was done.
        images_per_second: samples trained on a second of the steps' wall time, with the wait for
            data and without checkpoints and probes, all processes together; None where no step
            was done.
        damaged: samples that the run has passed over so far, listed in its damaged.jsonl.
    """

    folder: Path
    steps: int
    resumed_from: int | None
    steps_done: int
    loss: float | None
    images_per_second: float | None
    damaged: int = 0


def train(
    config: TrainConfig, report: Report | None = None, *, spec: Spec | None = None
) -> RunSummary:
    """Train a ControlNet, or go on with the run that `config.out` holds.

    Under `accelerate launch`, every process calls this with the same settings.

    Args:
        config: the settings.
        report: called after each optimizer step on the main process, in place of the console.
        spec: the detector that made the condition, with which probes find it again; None: no
            probes.

    Raises:
        CatalogError: the dataset, the snapshot or the subset is not there.
        BaseModelError: the base model is not there.
        DataError: the dataset has no such condition, sizes that cannot be trained on, or more
            damaged samples than may be passed over.
        DataUnavailable: the storage does not give a sample.
        ResumeMismatch: `config.out` holds another training.
        CheckpointError: the checkpoint to resume from is damaged.
        DivergedError: the loss is no longer a number.
    """
    dataset = Dataset.open(config.dataset)
    whole = dataset.view(snapshot=config.snapshot, columns=TO_READ).cached(config.cache)
    view = whole
    if config.subset is not None:
        view = dataset.view(config.subset, config.snapshot, columns=TO_READ).cached(config.cache)
    rows = Rows(
        view=view,
        whole=whole,
        dataset=dataset.fingerprint,
        removed=len(tombstones.removed_keys(dataset.uri)),
        detector=getattr(spec, "detector", None),
        latents=find_latents(dataset.uri),
    )
    return train_on(config, rows, report, spec=spec)


def train_on(
    config: TrainConfig, rows: Rows, report: Report | None = None, *, spec: Spec | None = None
) -> RunSummary:
    """Train as `train` does, on rows that are already open.

    Args:
        config: the settings; its `dataset`, `snapshot` and `subset` are only recorded.
        rows: what there is to train on.
        report: as for `train`.
        spec: as for `train`.
    """
    session = open_session(config, rows)
    config = session.config
    start = session.start.step
    if start >= config.steps:
        _log.info("%s: all done, it has %d of %d steps", session.run, start, config.steps)
        done = []
    else:
        done = run_phases(session, report, spec)
    finish(session)
    seconds = sum(step.seconds for step in done)
    return RunSummary(
        folder=session.run,
        steps=start + len(done),
        resumed_from=start if session.resumed else None,
        steps_done=len(done),
        loss=done[-1].loss if done else None,
        images_per_second=sum(step.samples for step in done) / seconds if done else None,
        damaged=len(session.damage.keys()),
    )


def run_phases(
    session: Session, report: Report | None = None, spec: Spec | None = None
) -> list[StepReport]:
    """Take the steps that are left, phase by phase; each begins at the checkpoint before it.

    After a signal, the step in hand is finished and saved before the signal has its way.
    """
    done: list[StepReport] = []
    with ExitStack() as stack:
        reports = _reports(session, report, stack)
        probing = open_probing(session, session.held_out, spec)
        stop = stack.enter_context(StopRequest())
        while session.start.step < session.config.steps and not stop.agreed:
            done += run_phase(session, load_trained(session), reports, stop, probing)
            session = session.at_newest()
        stop.obey()
    return done


def run_phase(
    session: Session,
    trained: Trained,
    reports: Sequence[Report],
    stop: StopRequest,
    probing: Probing | None = None,
) -> list[StepReport]:
    """Take the steps that the phase in hand has left; checkpoint on the way and at the end."""
    config, index = session.config, session.phase_index
    last = last_step(session.phase, config.steps)
    batches = _batches(session, last)
    done = []
    if probing is not None and session.start.step == 0:
        probing.measure(session, trained, 0)
    for step in range(session.start.step + 1, last + 1):
        done.append(_timed_step(session, trained, batches, step, stop))
        for tell in reports:
            tell(done[-1])
        if session.accelerator.num_processes == 1:  # nobody has to be told
            stop.agree(stop.number is not None)
        converged = False
        if probing is not None and probing.due(step, last):
            converged = probing.measure(session, trained, step)
        position = session.position(step, converged=converged)
        over = position.phase > index or step == last or stop.agreed
        if over or step % config.checkpoint_every == 0:
            save(session, trained, position)
        if over:
            break
    return done


def _batches(session: Session, last: int) -> Iterator[Batch]:
    indices = IndexBatches(
        start=session.start.position.sample,
        stop=session.sample(last),
        batch_size=session.config.batch_size,
        rank=session.accelerator.process_index,
        processes=session.accelerator.num_processes,
    )
    return load_batches(
        session.examples,
        indices,
        workers=session.config.num_workers,
        pin_memory=session.accelerator.device.type == "cuda",
    )


def _reports(session: Session, report: Report | None, stack: ExitStack) -> list[Report]:
    config, first = session.config, session.start.step + 1
    if not session.accelerator.is_main_process:
        return []
    shown = config.model_dump(mode="json")
    stack.enter_context(wandb_mirror(session.run, config.wandb, shown))  # before TensorBoard opens
    logs = tensorboard_report(session.run / LOGS, first=first, log_every=config.log_every)
    reports = [stack.enter_context(logs)]
    reports.append(file_report(session.run, first=first, log_every=config.log_every))
    if report is None:
        console = console_report(first=first, steps=config.steps, log_every=config.log_every)
        report = stack.enter_context(console)
    return [*reports, report]


def _timed_step(
    session: Session, trained: Trained, batches: Iterator[Batch], step: int, stop: StopRequest
) -> StepReport:
    begun = time.perf_counter()
    rate = _set_rate(session, trained, step)
    loss = _step(session, trained, batches, step, stop)
    if not math.isfinite(loss):
        raise DivergedError(
            f"the loss is {loss} at step {step}: lower the learning rate "
            f"({rate}) or use mixed_precision no, in a new run folder"
        )
    return StepReport(
        step=step,
        loss=loss,
        learning_rate=rate,
        samples=session.samples_per_step,
        seconds=time.perf_counter() - begun,
    )


def _set_rate(session: Session, trained: Trained, step: int) -> float:
    """Set the learning rate of `step`, a function of the step alone, and return it."""
    config = session.config
    rate = session.phase.rate(config.learning_rate) * rate_share(config, step)
    for group in trained.optimizer.param_groups:
        group["lr"] = rate
    return rate


def rate_share(config: TrainConfig, step: int) -> float:
    """Return the share of the learning rate that `step` has, 0..1: warm-up, then the schedule."""
    if step <= config.warmup:
        return step / config.warmup
    if config.schedule == "constant":
        return 1.0
    done = (step - 1 - config.warmup) / max(1, config.steps - config.warmup)
    return 0.5 * (1 + math.cos(math.pi * done))


def _step(
    session: Session, trained: Trained, batches: Iterator[Batch], step: int, stop: StopRequest
) -> float:
    """Take one optimizer step; return the mean loss over its samples, on all processes.

    A signal that one process got is passed on to all, so that they stop after the same step; one
    that comes once a process has told what it knows counts at the next step. What one found
    damaged is passed on likewise.
    """
    accelerator, losses, config = session.accelerator, [], session.config
    damaged: list[Damage] = []
    for batch in islice(batches, config.gradient_accumulation):
        with accelerator.accumulate(trained.denoiser):
            loss = batch_loss(session, trained, batch)
            accelerator.backward(loss)
            if config.max_grad_norm and accelerator.sync_gradients:
                weights = [w for group in trained.optimizer.param_groups for w in group["params"]]
                accelerator.clip_grad_norm_(weights, config.max_grad_norm)
            trained.optimizer.step()
            trained.optimizer.zero_grad()
        losses.append(loss.detach().float())
        damaged += batch.passed_over
    if trained.average is not None and not accelerator.optimizer_step_was_skipped:
        trained.average.update(accelerator.unwrap_model(trained.denoiser), step)
    news = losses[0].new_tensor([stop.number or 0, len(damaged)])
    told = torch.cat([torch.stack(losses).mean()[None], news])
    loss, number, found = accelerator.reduce(told, reduction="mean").tolist()
    stop.agree(number > 0)
    session.damage.add(gather_object(damaged) if found else [], session.samples_per_step)
    return float(loss)


def batch_loss(session: Session, trained: Trained, batch: Batch) -> torch.Tensor:
    """Return the loss of `batch`, with the noise and the timesteps that belong to its samples."""
    base, device = session.base, session.accelerator.device
    height, width = (side // base.scale for side in batch.hints.shape[-2:])
    draws = draw(
        batch.indices,
        (base.vae.config.latent_channels, height, width),
        seed=session.config.seed,
        timesteps=base.scheduler.config.num_train_timesteps,
    )
    with session.accelerator.autocast():
        inputs = Inputs(
            latents=base.latents(_moments(base, batch, device), draws.posterior),
            noise=draws.noise.to(device),
            timesteps=draws.timesteps.to(device),
            text=_text(base, batch, device),
            hint=base.hint(as_unit(batch.hints.to(device, non_blocking=True))),
        )
        return denoising_loss(base, trained.denoiser, inputs)


def _moments(base: Base, batch: Batch, device: torch.device) -> torch.Tensor:
    if batch.moments is not None:
        return batch.moments.to(device, non_blocking=True).float()
    assert batch.images is not None, "neither images nor latents"
    return base.moments(as_signed(batch.images.to(device, non_blocking=True)))


def _text(base: Base, batch: Batch, device: torch.device) -> Text:
    if batch.text is None:
        return base.encode_text(batch.captions).of_sizes(batch.sizes)
    stored = Text(tokens=batch.text, pooled=batch.pooled).to(device)
    return stored.to(base.text_dtype).of_sizes(batch.sizes)
