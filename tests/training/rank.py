"""One process of several that train together: ``rank.py OUT BASE STEPS BATCH [SIGNAL_AT]``.

Signals itself in step SIGNAL_AT where it is the last process. The rows in $DAMAGED are damaged. A
``{rank}`` in OUT stands for a disk of each process's own.
"""

import os
import signal
import sys

from tests.training.damaged import DamagedView
from tests.training.stepping import rows_of
from training.run import loop, shared_disk
from training.settings.config import TrainConfig

out, base, steps, batch, *signal_at = sys.argv[1:]
last = os.environ["RANK"] == str(int(os.environ["WORLD_SIZE"]) - 1)
step_of = loop._step


def _step(session, trained, batches, step, stop):
    if last and signal_at == [str(step)]:
        signal.raise_signal(signal.SIGTERM)
    return step_of(session, trained, batches, step, stop)


loop._step = _step
shared_disk._PATIENCE = 1.0
config = TrainConfig(
    dataset="unused",
    condition="canny",
    base=base,
    out=out.format(rank=os.environ["RANK"]),
    steps=int(steps),
    batch_size=int(batch),
    checkpoint_every=100,
    log_every=1,
    learning_rate=1e-3,
)
damaged = tuple(int(row) for row in os.environ.get("DAMAGED", "").split())
loop.train_on(config, rows_of(DamagedView(changed=damaged)), lambda report: None)
