"""One process's part in a run: opened from the newest checkpoint, saved to the next."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from training.checkpoint import (
    Checkpoint,
    State,
    list_checkpoints,
    load_state,
    load_weights,
    publish,
    save_checkpoint,
    verify,
)
from training.config import TrainConfig
from training.controlnet import (
    Base,
    fingerprint,
    load_base,
    new_controlnet,
    starting_controlnet,
)
from training.data import Examples, SampleView
from training.errors import TrainingError
from training.run_folder import (
    Identity,
    check_identity,
    identify,
    read_settings,
    run_path,
    write_settings,
)

_LOCKED_TYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A run that is about to go on.

    Attributes:
        config: the settings.
        accelerator: devices and processes.
        base: the locked model.
        examples: global sample index -> decoded sample.
        run: the run folder.
        identity: what the run may not change.
        resumed: False where the run is new.
        start: the checkpoint it goes on from; of step 0 for a new run.
    """

    config: TrainConfig
    accelerator: Accelerator
    base: Base
    examples: Examples
    run: Path
    identity: Identity
    resumed: bool
    start: Checkpoint

    @property
    def samples_per_step(self) -> int:
        """Samples that one optimizer step reads, in all processes."""
        micro = self.config.batch_size * self.accelerator.num_processes
        return int(micro * self.config.gradient_accumulation)

    def position(self, step: int) -> int:
        """The next global sample index after `step` optimizer steps."""
        return self.start.position + (step - self.start.step) * self.samples_per_step


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What learns, as accelerate wraps it.

    Attributes:
        controlnet: the ControlNet, its weights in fp32.
        optimizer: AdamW.
    """

    controlnet: Any
    optimizer: Any


def open_session(config: TrainConfig, view: SampleView, dataset: str) -> Session:
    """Load the base, compare the run folder with the settings, and give a new run its step 0.

    Args:
        config: the settings.
        view: the rows to train on.
        dataset: fingerprint of the dataset that they belong to.
    """
    run = run_path(config.out)
    accelerator = _accelerator(config)
    base = load_base(
        config.base,
        revision=config.revision,
        local_files_only=config.local_files_only,
        dtype=_LOCKED_TYPES[config.mixed_precision],
    )
    examples = Examples(
        view,
        config.condition,
        seed=config.seed,
        prompt_dropout=config.prompt_dropout,
        multiple=base.scale,
    )
    identity = identify(
        config,
        dataset=dataset,
        view=view.fingerprint,
        base=fingerprint(base.networks),
        processes=accelerator.num_processes,
    )
    check_identity(run, identity)
    resumed = bool(list_checkpoints(run))
    accelerator.wait_for_everyone()  # all have looked, before one writes
    if accelerator.is_main_process:
        _record(config, run, identity)
        if not resumed:
            _save_untrained(config, run, base)
    accelerator.wait_for_everyone()
    return Session(
        config=config,
        accelerator=accelerator,
        base=base,
        examples=examples,
        run=run,
        identity=identity,
        resumed=resumed,
        start=list_checkpoints(run)[-1],
    )


def _accelerator(config: TrainConfig) -> Accelerator:
    if config.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise TrainingError("mixed_precision fp16 needs a CUDA device; use bf16 or no on a CPU")
    return Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.gradient_accumulation,
    )


def _record(config: TrainConfig, run: Path, identity: Identity) -> None:
    published = (read_settings(run) or {}).get("published_step")
    write_settings(run, config, identity, published_step=published)


def _save_untrained(config: TrainConfig, run: Path, base: Base) -> None:
    if config.start_from is None:
        controlnet = new_controlnet(base, seed=config.seed)
    else:
        controlnet = starting_controlnet(base, config.start_from)
    state = State(optimizer=_adamw(config, controlnet).state_dict(), scaler=None)
    save_checkpoint(run, controlnet, state, step=0, position=0)


def _adamw(config: TrainConfig, controlnet: torch.nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        controlnet.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )


def load_trained(session: Session) -> Trained:
    """Load the start checkpoint onto the device, with the locked networks beside it.

    Raises:
        CheckpointError: the checkpoint is damaged.
    """
    config, accelerator = session.config, session.accelerator
    verify(session.start)
    session.base.to(accelerator.device)
    network = load_weights(session.start).train()
    controlnet, optimizer = accelerator.prepare(network, _adamw(config, network))
    state = load_state(session.start)
    optimizer.load_state_dict(state.optimizer)  # after prepare, which moves the weights
    if accelerator.scaler is not None and state.scaler is not None:
        accelerator.scaler.load_state_dict(state.scaler)
    return Trained(controlnet=controlnet, optimizer=optimizer)


def save(session: Session, trained: Trained, step: int) -> None:
    """Commit the checkpoint of `step`."""
    accelerator = session.accelerator
    if accelerator.is_main_process:
        scaler = accelerator.scaler
        state = State(
            optimizer=trained.optimizer.state_dict(),
            scaler=None if scaler is None else scaler.state_dict(),
        )
        network = accelerator.unwrap_model(trained.controlnet)
        save_checkpoint(session.run, network, state, step=step, position=session.position(step))
    accelerator.wait_for_everyone()


def finish(session: Session) -> None:
    """Publish the newest checkpoint's network in the run folder, unless it stands there already."""
    newest = list_checkpoints(session.run)[-1]
    settings = read_settings(session.run) or {}
    if session.accelerator.is_main_process and settings.get("published_step") != newest.step:
        publish(newest, session.run)
        write_settings(session.run, session.config, session.identity, published_step=newest.step)
    session.accelerator.wait_for_everyone()
    session.accelerator.free_memory()
