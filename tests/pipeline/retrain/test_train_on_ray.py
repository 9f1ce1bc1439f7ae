"""The same loop under Ray Train: the losses of one process, a worker's death, a mistake's words."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.pipeline.build.test_on_ray import _COMMON, ROOT, command
from tests.pipeline.ray_head import Head
from training.model.random_base import write_random_base
from training.run.checkpoint import list_checkpoints
from training.watch.signals import losses

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

_LIMIT = 240.0  # seconds


@pytest.fixture(scope="module")
def made(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train-on-ray")
    write_random_base(str(folder / "base"), resolutions=2, layers=1)
    arguments = ("--images", str(pictures), "--out", str(folder / "d"), *_COMMON)
    built = command("build", "canny", "--local", *arguments)
    assert built.returncode == 0, built.stderr
    return folder


def line(made: Path, out: str, *more: str) -> list[str]:
    given = ["train", "--dataset", str(made / "d"), "--base", str(made / "base")]
    given += ["--out", str(made / out), "--learning-rate", "0.001", "--probe-every", "0"]
    return [*given, "--checkpoint-every", "2", "--set", "log_every=1", *more]


def test_workers_train_as_one_process_and_one_goes_on(made: Path, head: Head) -> None:
    alone = command(*line(made, "one", "--steps", "4", "--batch-size", "2"))
    assert alone.returncode == 0, alone.stderr
    two = line(made, "two", "--steps", "4", "--batch-size", "1", "--ray-workers", "2")
    both = command(*two, head=head)
    assert both.returncode == 0, both.stderr
    assert "trained: 4 steps" in both.stdout
    found, expected = (
        {record.step: record.loss for record in losses(made / run).read()} for run in ("two", "one")
    )
    assert found == pytest.approx(expected, rel=1e-4)
    again = command(*line(made, "two", "--steps", "5", "--batch-size", "2"))
    assert again.returncode == 0, again.stderr
    assert [one.step for one in list_checkpoints(made / "two")] == [0, 2, 4, 5]


def test_a_worker_that_dies_is_begun_again(made: Path, head: Head) -> None:
    arguments = line(made, "died", "--steps", "12", "--batch-size", "1", "--ray-workers", "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *arguments],
        env=head.environment | {"RAY_ADDRESS": head.address},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + _LIMIT
    while len(losses(made / "died").read()) < 3:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.05)
    workers = [one for one in psutil.process_iter(["cmdline"]) if _is_worker(one)]
    for worker in workers:
        worker.kill()
    said = process.communicate(timeout=_LIMIT)[1]
    assert process.returncode == 0, said
    assert workers
    steps = [record.step for record in losses(made / "died").read()]
    assert steps == list(range(1, 13))


def _is_worker(process: psutil.Process) -> bool:
    return any("RayTrainWorker" in word for word in process.info["cmdline"] or ())


def test_a_mistake_is_one_message(made: Path, head: Head) -> None:
    wrong = line(made, "wrong", "--steps", "2", "--ray-workers", "1", "--crop", "512")
    done = command(*wrong, head=head)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "have no square of 512" in done.stderr
