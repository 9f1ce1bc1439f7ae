"""What others show of a run: probes in TensorBoard, and all that TensorBoard has in W&B."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from training.errors import TrainingError
from training.watch.signals import ProbeRecord, ReferenceRecord
from training.watch.step_pictures import SHOWN, read_picture

LOGS = "logs"
"""Where TensorBoard's events lie in a run's folder."""

_WANDB_ID = "wandb-id"


def show_probe(run: Path, record: ProbeRecord, references: ReferenceRecord | None) -> None:
    """Write a probe's figures and pictures into the run's TensorBoard events.

    Args:
        run: the run folder, with the pictures of the probe.
        record: of the probe.
        references: whose keys name the pictures; None shows figures alone.
    """
    figures = {
        "adherence": record.adherence,
        "adherence_normalised": record.normalised,
        "condition_gap": record.condition_gap,
    }
    with SummaryWriter(str(run / LOGS)) as writer:
        for name, value in figures.items():
            if value is not None:
                writer.add_scalar(name, value, record.step)
        for key in references.keys[:SHOWN] if references is not None else ():
            picture = read_picture(run, record.step, key)
            writer.add_image(f"held_out/{key[:8]}", picture, record.step, dataformats="HWC")


@contextmanager
def wandb_mirror(run: Path, project: str | None, settings: Mapping[str, Any]) -> Iterator[None]:
    """Send what TensorBoard gets in the block to Weights & Biases; a resumed run goes on there.

    Args:
        run: the run folder, which keeps the run's id.
        project: of W&B; None sends nothing.
        settings: shown beside the curves.

    Raises:
        TrainingError: wandb is not installed.
    """
    if project is None:
        yield
        return
    try:
        import wandb
    except ImportError as error:
        raise TrainingError(
            "wandb is not installed, which `wandb: PROJECT` needs: pip install wandb"
        ) from error
    (run / LOGS).mkdir(parents=True, exist_ok=True)
    kept = run / LOGS / _WANDB_ID
    if not kept.is_file():
        kept.write_text(uuid.uuid4().hex[:12])
    mirrored = wandb.init(
        project=project,
        id=kept.read_text(),
        name=run.name,
        dir=str(run / LOGS),
        config=dict(settings),
        resume="allow",
        sync_tensorboard=True,
    )
    try:
        yield
    finally:
        mirrored.finish()
