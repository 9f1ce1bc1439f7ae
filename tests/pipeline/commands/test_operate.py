"""Commands for operators: their lines, their exit codes, no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import Exit


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "pipeline", *arguments]
    done = subprocess.run(
        line,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        | environment,
    )
    assert "Traceback" not in done.stderr + done.stdout
    return done


def test_doctor_finds_missing_weights_and_says_what_to_do(tmp_path: Path) -> None:
    arguments = ["--recipe", "hough", "--out", str(tmp_path / "d"), "--device", "cuda"]
    nothing = {name: str(tmp_path / "w") for name in ("CONTROLNET_FACTORY_CACHE",)}
    done = command("doctor", *arguments, CONTROLNET_FACTORY_WEIGHTS="", **nothing)
    assert done.returncode == Exit.FAILED, done.stderr
    lines = done.stdout.splitlines()
    (weights,) = [line for line in lines if " weights on " in line]
    assert weights.startswith("fault")
    assert "0 of 1 here; not here: mlsd_large" in weights
    assert "weights fetch mlsd_large --to FOLDER" in done.stdout
    good = [line.split(" on ")[0].split()[1:] for line in lines if line.startswith("ok")]
    for name in (["versions"], ["cv2"], ["mediapipe"], ["storage"]):
        assert name in good
    assert not list(tmp_path.iterdir())


def test_doctor_without_its_cluster_goes_on_with_this_machine(tmp_path: Path) -> None:
    done = command("doctor", "--recipe", "canny", RAY_ADDRESS="127.0.0.1:1")
    assert done.returncode == Exit.FAILED
    assert done.stdout.startswith("fault    ray: no Ray answers at 127.0.0.1:1: ")
    assert "weights: none needed" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["doctor", "--device", "tpu"], "expected cpu or cuda"),
        (["doctor", "--recipe", "cany"], "no recipe at 'cany'"),
    ],
)
def test_a_mistake_is_one_message(arguments: list[str], said: str) -> None:
    done = command(*arguments)
    assert done.returncode == Exit.USAGE
    assert said in done.stderr
