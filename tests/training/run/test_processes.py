"""Two processes train as one: the same samples in the same order, stopped after the same step."""

import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.damaged import DamagedView
from tests.training.rank import SERVER, train_rank
from tests.training.stepping import Steps, rows_of
from training.data.view import SampleView
from training.errors import TrainingError
from training.run.checkpoint import list_checkpoints
from training.run.damage import FILE
from training.run.folder import run_path
from training.run.loop import train_on
from training.run.shared_disk import TOKEN
from training.settings.config import TrainConfig
from training.watch.signals import losses

_LIMIT = 240.0  # seconds


def run(
    config: TrainConfig,
    folder: Path,
    view: SampleView,
    *,
    world: int = 2,
    signal_at: int | None = None,
) -> list[tuple[int | None, str]]:
    """Run that many processes; return exit code and stderr of each. The last one is signalled."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
    }
    settings, started = config.model_dump(mode="json"), []
    for rank in range(world):
        at = signal_at if rank == world - 1 else None
        said = folder / f"said-{rank}"
        arguments = (rank, together, said, settings, view, at)
        started.append((SERVER.Process(target=train_rank, args=arguments), said))
    for process, _ in started:
        process.start()
    for process, _ in started:
        process.join(_LIMIT)
    return [(process.exitcode, said.read_text()) for process, said in started]


def test_two_processes_train_as_one_and_stop_after_the_same_step(
    config_of: Callable[..., TrainConfig], view_type: type, tmp_path: Path
) -> None:
    """The second one is told to stop in step 3."""
    alone = Steps()
    train_on(config_of(tmp_path / "one", steps=3, batch_size=4), rows_of(view_type()), alone)
    both = run(
        config_of(tmp_path / "two", steps=9, checkpoint_every=100),
        tmp_path,
        view_type(),
        signal_at=3,
    )
    assert [code for code, _ in both] == [-signal.SIGTERM, -signal.SIGTERM], both[0][1]
    found = {record.step: record.loss for record in losses(tmp_path / "two").read()}
    assert found == pytest.approx(alone.losses, rel=1e-4)
    assert [one.step for one in list_checkpoints(tmp_path / "two")] == [0, 3]
    (folder,) = (tmp_path / "two" / "checkpoints").glob("*3")
    assert {path.name for path in folder.glob("random-*")} == {"random-0000.pt", "random-0001.pt"}


@pytest.mark.parametrize("stale", [False, True])
def test_processes_without_a_shared_disk_are_refused_together(
    config_of: Callable[..., TrainConfig],
    view_type: type,
    tmp_path: Path,
    stale: bool,
) -> None:
    """The second one's disk has nothing, or another run of before."""
    if stale:
        train_on(config_of(tmp_path / "disk-1", steps=1, seed=5), rows_of(view_type()), Steps())
    both = run(config_of(tmp_path / "disk-{rank}", steps=2), tmp_path, view_type())
    for code, said in both:
        assert code == 1, said
        assert "1 of 2 processes do not see what the first one wrote" in said
        assert "out must be on a disk that all of them share" in said
    assert list((tmp_path / "disk-0").iterdir()) == []


def test_what_a_killed_check_left_is_no_run(tmp_path: Path) -> None:
    for name in (f"{TOKEN}1", "held_out.json", ".held_out.json.0a1b.tmp"):
        (tmp_path / name).touch()
    assert run_path(str(tmp_path)) == tmp_path
    (tmp_path / "other").touch()
    with pytest.raises(TrainingError, match="holds something else"):
        run_path(str(tmp_path))


def test_what_either_process_finds_damaged_is_recorded_by_the_first(
    config_of: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    view = DamagedView(changed=(0, 3))
    alone = Steps()
    train_on(config_of(tmp_path / "one", steps=2, batch_size=4), rows_of(view), alone)
    both = run(config_of(tmp_path / "two", steps=2), tmp_path, view)
    assert [code for code, _ in both] == [0, 0], both[0][1]
    found = {record.step: record.loss for record in losses(tmp_path / "two").read()}
    assert found == pytest.approx(alone.losses, rel=1e-4)
    told = [(tmp_path / run / FILE).read_text().splitlines() for run in ("one", "two")]
    assert sorted(told[0]) == sorted(told[1])
    assert len(told[1]) == 2
