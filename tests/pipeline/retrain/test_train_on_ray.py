"""The same loop under Ray Train: the losses of one process, a worker's death, a mistake's words."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from pipeline.retrain import on_ray, ray_worker
from tests.pipeline.build.test_on_ray import _COMMON, ROOT
from tests.pipeline.in_process import here
from tests.pipeline.ray_head import Head
from tests.random_base import write_random_base
from tests.training.stepping import forget_accelerate
from training.run.checkpoint import list_checkpoints
from training.settings.config import TrainConfig
from training.watch.signals import losses

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

_LIMIT = 240.0  # seconds


@pytest.fixture(scope="module")
def made(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train-on-ray")
    write_random_base(str(folder / "base"), resolutions=2, layers=1)
    arguments = ("--images", str(pictures), "--out", str(folder / "d"), *_COMMON)
    here("build", "canny", "--local", *arguments)
    return folder


def line(made: Path, out: str, *more: str) -> list[str]:
    given = ["train", "--dataset", str(made / "d"), "--base", str(made / "base")]
    given += ["--out", str(made / out), "--learning-rate", "0.001", "--probe-every", "0"]
    return [*given, "--checkpoint-every", "2", "--set", "log_every=1", *more]


def test_workers_of_which_one_dies_train_as_one_process(made: Path, head: Head) -> None:
    """And one process goes on with what they have trained."""
    here(*line(made, "one", "--steps", "10", "--batch-size", "2"))
    two = line(made, "two", "--steps", "10", "--batch-size", "1", "--ray-workers", "2")
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *two],
        env=head.environment | {"RAY_ADDRESS": head.address},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + _LIMIT
    while len(losses(made / "two").read()) < 3:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.05)
    workers = [one for one in psutil.process_iter(["cmdline"]) if _is_worker(one)]
    assert len(workers) == 2
    workers[0].kill()
    shown, said = process.communicate(timeout=_LIMIT)
    assert process.returncode == 0, said
    assert "trained: 10 steps" in shown
    assert [f"step {step} of 10:" in said for step in range(1, 11)] == [True] * 10
    found, expected = (
        {record.step: record.loss for record in losses(made / run).read()} for run in ("two", "one")
    )
    assert list(found) == list(range(1, 11))
    assert found == pytest.approx(expected, rel=1e-4)
    here(*line(made, "two", "--steps", "11", "--batch-size", "2"))
    assert [one.step for one in list_checkpoints(made / "two")] == [0, 2, 4, 6, 8, 10, 11]


def _is_worker(process: psutil.Process) -> bool:
    return any("RayTrainWorker" in word for word in process.info["cmdline"] or ())


def test_what_only_a_person_can_mend_is_told_and_not_tried_again(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    mistakes = SimpleNamespace(tell=SimpleNamespace(remote=said.append))
    monkeypatch.setattr(ray_worker, "ray", SimpleNamespace(get=lambda _: None, get_gpu_ids=list))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    settings = {"dataset": str(made / "d"), "base": str(made / "base"), "out": str(made / "wrong")}
    more = {"condition": "canny", "steps": 1, "crop": 512}
    ray_worker.work({"settings": settings | more, "mistakes": mistakes})
    assert len(said) == 1
    assert "have no square of 512" in said[0]
    forget_accelerate()


def test_workers_are_told_of_places_from_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("base", "start"):
        (tmp_path / name).mkdir()
    given = {"condition": "canny", "out": "run", "steps": 1, "cache": "kept"}
    local = {"dataset": "d", "base": "base", "start_from": "start"}
    told = on_ray.settings_for_workers(TrainConfig.model_validate(given | local))
    places = {"dataset": "d", "base": "base", "start_from": "start", "out": "run", "cache": "kept"}
    assert told == {**given, **{name: str(tmp_path / place) for name, place in places.items()}}
    remote = {"dataset": "s3://b/d", "base": "somebody/base"}
    told = on_ray.settings_for_workers(TrainConfig.model_validate(given | remote))
    assert (told["dataset"], told["base"]) == ("s3://b/d", "somebody/base")
