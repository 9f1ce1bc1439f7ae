"""One process's part in a run: opened from the newest checkpoint, saved to the next."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import nn

from catalog.dataset.latents import LatentsFolder
from catalog.memory import keep_freed_memory
from training.data.augment import Augment
from training.data.examples import Examples
from training.data.held_out import (
    choose_held_out,
    held_out_view,
    read_held_out,
    write_held_out,
)
from training.data.view import SampleView
from training.errors import TrainingError
from training.model.base import LOCKED_TYPES, Base, fingerprint, load_base
from training.model.choose import load_denoiser, new_denoiser
from training.model.denoiser import Denoiser
from training.model.weight_average import Average
from training.run import checkpoint as checkpoints
from training.run.checkpoint import Checkpoint, Position, State, list_checkpoints
from training.run.damage import DamageLog
from training.run.encoded import choose_latents
from training.run.folder import (
    Identity,
    as_begun,
    check_identity,
    identify,
    latents_begun_with,
    read_settings,
    run_path,
    write_settings,
)
from training.run.shared_disk import check_shared
from training.run.starting import check_start
from training.settings.config import TrainConfig
from training.settings.phases import Phase, advance
from training.watch.signals import best_step

_log = logging.getLogger(__name__)

_PATIENCE = timedelta(hours=2)  # of the other processes, while the first one probes


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What there is to train on.

    Attributes:
        view: the rows to train on, before any is held out.
        whole: all rows of the dataset, out of which samples are held out.
        dataset: fingerprint of the dataset.
        removed: how many samples were taken down from it so far.
        detector: the kind that made the condition, which decides how it may be mirrored; None
            where nobody knows it.
        latents: that the dataset has.
    """

    view: SampleView
    whole: SampleView
    dataset: str
    removed: int = 0
    detector: str | None = None
    latents: Sequence[LatentsFolder] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A run that is about to go on.

    Attributes:
        config: the settings.
        accelerator: devices and processes.
        base: the locked model.
        examples: global sample index -> decoded sample.
        held_out: rows that are kept out of training, to measure on.
        run: the run folder.
        identity: what the run may not change.
        damage: what of the rows is damaged.
        resumed: False where the run is new.
        start: the checkpoint it goes on from; of step 0 for a new run.
    """

    config: TrainConfig
    accelerator: Accelerator
    base: Base
    examples: Examples
    held_out: SampleView
    run: Path
    identity: Identity
    damage: DamageLog
    resumed: bool
    start: Checkpoint

    @property
    def samples_per_step(self) -> int:
        """Samples that one optimizer step reads, in all processes."""
        micro = self.config.batch_size * self.accelerator.num_processes
        return int(micro * self.config.gradient_accumulation)

    @property
    def phase_index(self) -> int:
        """Index of the phase that the next step belongs to; those that are over are skipped."""
        held = self.start.position
        return advance(self.config.phases, held.phase, held.step)

    @property
    def phase_begun(self) -> int:
        """The step that the phase in hand began after."""
        held = self.start.position
        return held.phase_begun if self.phase_index == held.phase else held.step

    @property
    def phase(self) -> Phase:
        """The phase that the next step belongs to."""
        return self.config.phases[self.phase_index]

    def sample(self, step: int) -> int:
        """The next global sample index after `step` optimizer steps."""
        return self.start.position.sample + (step - self.start.step) * self.samples_per_step

    def position(self, step: int, *, converged: bool) -> Position:
        """Where the training stands after `step`; the next phase begins where this one is over."""
        index = self.phase_index
        following = advance(self.config.phases, index, step, converged=converged)
        return Position(
            step=step,
            sample=self.sample(step),
            phase=following,
            phase_begun=step if following != index else self.phase_begun,
            trained=index,
        )

    def at_newest(self) -> "Session":
        """The same, going on from the newest checkpoint."""
        return replace(self, start=list_checkpoints(self.run)[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What learns, as accelerate wraps it.

    Attributes:
        denoiser: the network, what learns of it in fp32.
        optimizer: AdamW.
        average: of the weights that learn; None where none is asked for.
    """

    denoiser: Any
    optimizer: Any
    average: Average | None


def open_session(config: TrainConfig, rows: Rows) -> Session:
    """Load the base, compare the run folder with the settings, and give a new run its step 0.

    Args:
        config: the settings.
        rows: what there is to train on.
    """
    run = run_path(config.out)
    config = as_begun(config, run)
    accelerator = _accelerator(config)
    check_shared(accelerator, run)
    if accelerator.device.type == "cpu":
        keep_freed_memory()  # activations of the step before, most of all
    held = list_checkpoints(run)
    keys = read_held_out(run)  # also of a new run: somebody may have chosen them before
    if not keys and not held:
        keys = choose_held_out(rows.whole.keys(), config.held_out)
    view, held_out = held_out_view(rows.whole, rows.view, keys)
    base = load_base(
        config.base,
        revision=config.revision,
        local_files_only=config.local_files_only,
        dtype=LOCKED_TYPES[config.mixed_precision],
        vae=config.vae,
    )
    group = config.batch_size * config.gradient_accumulation * accelerator.num_processes
    latents = choose_latents(rows.latents, base, view, config, latents_begun_with(run))
    examples = Examples(
        view,
        config.condition,
        seed=config.seed,
        prompt_dropout=config.prompt_dropout,
        multiple=base.scale,
        step=group,
        group=group if config.aspect_buckets else None,
        augment=Augment(crop=config.crop, flip=config.flip),
        detector=rows.detector,
        latents=latents,
    )
    if examples.order.left_out:
        _log.warning(
            "%d samples are of sizes too rare to fill a step of %d, and are never shown",
            examples.order.left_out,
            group,
        )
    identity = identify(
        config,
        dataset=rows.dataset,
        view=view,
        removed=rows.removed,
        held_out=len(keys) if config.held_out is None else config.held_out,
        base=fingerprint(base.networks),
        latents=None if latents is None else latents.identity.name,
        processes=accelerator.num_processes,
    )
    check_identity(run, identity, held[-1].position if held else None)
    if not held:
        check_start(config, base)
    accelerator.wait_for_everyone()  # all have looked, before one writes
    if accelerator.is_main_process:
        _record(config, run, identity)
        if not held:
            write_held_out(run, keys)
            _save_untrained(config, run, base)
    accelerator.wait_for_everyone()
    base.to(accelerator.device)
    return Session(
        config=config,
        accelerator=accelerator,
        base=base,
        examples=examples,
        held_out=held_out,
        run=run,
        identity=identity,
        damage=DamageLog(
            run,
            rows=len(view),
            share=config.max_damaged_share,
            writes=accelerator.is_main_process,
        ),
        resumed=bool(held),
        start=list_checkpoints(run)[-1],
    )


def _accelerator(config: TrainConfig) -> Accelerator:
    if config.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise TrainingError("mixed_precision fp16 needs a CUDA device; use bf16 or no on a CPU")
    return Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.gradient_accumulation,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
    )


def _record(config: TrainConfig, run: Path, identity: Identity) -> None:
    published = (read_settings(run) or {}).get("published_step")
    write_settings(run, config, identity, published_step=published)


def _save_untrained(config: TrainConfig, run: Path, base: Base) -> None:
    denoiser = new_denoiser(config, base)
    state = State(optimizer=_optimizer(config, denoiser.groups()).state_dict(), scaler=None)
    folder = checkpoints.begin(run, 0)
    checkpoints.write_state(folder, denoiser, state)
    checkpoints.commit(folder, Position())


def _optimizer(config: TrainConfig, groups: list[list[nn.Parameter]]) -> torch.optim.Optimizer:
    parameters = [{"params": group} for group in groups]
    if config.optimizer == "adamw_8bit":
        eight_bit: torch.optim.Optimizer = _adamw_8bit()(
            parameters, lr=config.learning_rate, weight_decay=config.weight_decay
        )
        return eight_bit
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=config.optimizer == "adamw_fused",
    )


def _adamw_8bit() -> Any:
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise TrainingError(
            "optimizer adamw_8bit needs bitsandbytes: pip install bitsandbytes, or use adamw"
        ) from error
    return AdamW8bit


def load_trained(session: Session) -> Trained:
    """Load the start checkpoint onto the device, with the locked networks beside it.

    Raises:
        CheckpointError: the checkpoint is damaged.
    """
    config, accelerator, start = session.config, session.accelerator, session.start
    checkpoints.verify(start)
    accelerator.free_memory()  # the network and optimizer of the phase before
    denoiser = load_denoiser(
        start.folder, session.base, trains=session.phase.trains, scope=session.phase.scope
    )
    if config.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    denoiser.to(accelerator.device)
    state = checkpoints.load_state(start)
    optimizer = _resumed_optimizer(config, denoiser, state)
    prepared, wrapped = accelerator.prepare(denoiser, optimizer)
    if accelerator.scaler is not None and state.scaler is not None:
        accelerator.scaler.load_state_dict(state.scaler)
    checkpoints.restore_random_state(start, accelerator.process_index)
    return Trained(denoiser=prepared, optimizer=wrapped, average=_average(session))


def _resumed_optimizer(
    config: TrainConfig, denoiser: Denoiser, state: State
) -> torch.optim.Optimizer:
    """Return the optimizer with the state of the weights that learned; new ones have none yet."""
    groups = denoiser.groups()
    known = len(state.optimizer["param_groups"])
    optimizer = _optimizer(config, groups[:known])
    optimizer.load_state_dict(state.optimizer)
    for group in groups[known:]:
        optimizer.add_param_group({"params": group})
    return optimizer


def _average(session: Session) -> Average | None:
    if session.config.ema is None:
        return None
    average = Average(session.config.ema)
    held, phase = session.start.folder / checkpoints.AVERAGE, session.phase
    if held.is_dir():
        saved = load_denoiser(held, session.base, trains=phase.trains, scope=phase.scope)
        average.restore(saved.to(session.accelerator.device))
    return average


def save(session: Session, trained: Trained, position: Position) -> None:
    """Commit a checkpoint at `position`; all processes call this."""
    accelerator, run = session.accelerator, session.run
    if accelerator.is_main_process:
        checkpoints.begin(run, position.step)
    accelerator.wait_for_everyone()
    folder = checkpoints.temporary(run, position.step)
    checkpoints.write_random_state(folder, accelerator.process_index)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        _save_state(session, trained, folder)
        checkpoints.commit(folder, position)
        if session.config.keep_last is not None:
            checkpoints.prune(run, keep_last=session.config.keep_last, best=best_step(run))
    accelerator.wait_for_everyone()


def _save_state(session: Session, trained: Trained, folder: Path) -> None:
    scaler = session.accelerator.scaler
    denoiser = session.accelerator.unwrap_model(trained.denoiser)
    state = State(
        optimizer=trained.optimizer.state_dict(),
        scaler=None if scaler is None else scaler.state_dict(),
    )
    checkpoints.write_state(folder, denoiser, state)
    if trained.average is not None:
        with trained.average.in_place(denoiser):
            denoiser.save(folder / checkpoints.AVERAGE)


def finish(session: Session) -> None:
    """Publish the newest checkpoint's network in the run folder, unless it stands there already."""
    newest = list_checkpoints(session.run)[-1]
    settings = read_settings(session.run) or {}
    if session.accelerator.is_main_process and settings.get("published_step") != newest.step:
        checkpoints.publish(newest, session.run)
        write_settings(session.run, session.config, session.identity, published_step=newest.step)
    session.accelerator.wait_for_everyone()
    session.accelerator.free_memory()
