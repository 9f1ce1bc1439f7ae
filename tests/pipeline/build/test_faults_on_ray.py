"""What a build survives: each fault ends in the bytes of the undisturbed build."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from catalog.dataset.dataset import Dataset
from catalog.dataset.verify import verify
from tests.pipeline.plain_readers import assert_as_undisturbed
from tests.pipeline.ray_head import Head, ray_head
from tests.rules import ANY_LOOK_FLAGS

TESTS = Path(__file__).parents[2]
MARK = b"a planted fault"
SMALL = ["--set", "image.resolution=64", "--set", "samples_per_unit=3", *ANY_LOOK_FLAGS]

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def planted(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures, each marked behind its end for the faults in tests/faults."""
    folder = tmp_path_factory.mktemp("planted") / "in"
    shutil.copytree(pictures, folder)
    for path in folder.rglob("*.[jp][pn]g"):
        path.write_bytes(path.read_bytes() + MARK)
    return folder


@pytest.fixture(scope="module")
def undisturbed(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "d"
    done = subprocess.run(_command("build", planted, out, "--local"), check=False)
    assert done.returncode == 0
    return out


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start a command of ours with a fault planted in it and in all its workers."""
    return _starter(_faulty(tmp_path / "fault"))


@pytest.fixture(scope="module")
def faulty_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A Ray head in whose workers faults can be planted."""
    with ray_head(2, **_faulty(tmp_path_factory.mktemp("head") / "fault")) as running:
        yield running


@pytest.fixture
def start_at(start: Start, where: str | None, request: pytest.FixtureRequest) -> Start:
    """Start a command as `start` does: one without --local on a head that is up already."""
    if where == "--local":
        return start
    head: Head = request.getfixturevalue("faulty_head")
    return _starter(head.environment | {"RAY_ADDRESS": head.address})


def _faulty(fault: Path) -> dict[str, str]:
    """Return an environment in which a file may hold a fault."""
    path = f"{TESTS / 'faults'}:{os.getcwd()}"
    return {"PYTHONPATH": path, "CONTROLNET_FACTORY_TEST_FAULT": str(fault)}


def _starter(environment: dict[str, str]) -> Start:
    place = Path(environment["CONTROLNET_FACTORY_TEST_FAULT"])

    def run(*command: str, fault: str = "", times: int | None = None) -> subprocess.Popen[str]:
        for turn in place.parent.glob(f"{place.name}*"):
            turn.unlink()
        if fault:
            place.write_text(fault if times is None else f"{fault}\n{times}")
        pipe = subprocess.PIPE
        ours = os.environ | environment
        return subprocess.Popen(command, env=ours, stdout=pipe, stderr=pipe, text=True)

    return run


def _command(name: str, images: Path, out: Path, *more: str) -> list[str]:
    given = ["--images", str(images), "--out", str(out), *SMALL, *more]
    return [sys.executable, "-m", "pipeline", name, "canny", *given]


def _finished(process: subprocess.Popen[str], seconds: float = 240) -> tuple[int, str]:
    """Return exit code and all output of a command."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out + err


def _wait_for_commits(out: Path, count: int) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if len(list((out / "commits").glob("*.json"))) >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"no {count} commits in {out}")


def test_actors_that_die_in_the_middle_of_units(
    start: Start, planted: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "d"
    code, said = _finished(start(*_command("build", planted, out), fault="die", times=3))
    assert code == 0, said
    assert len(list(tmp_path.glob("fault.*"))) == 3
    assert_as_undisturbed(out, undisturbed)


def test_a_worker_that_is_killed_for_its_memory(
    start: Start, planted: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's monitor kills it: the limit lies 3 GiB above what is in use, the hog takes more."""
    lines = [line.split() for line in Path("/proc/meminfo").read_text().splitlines()]
    have = {name.rstrip(":"): int(value) for name, value, *_ in lines}
    used = 1 - have["MemAvailable"] / have["MemTotal"]
    limit = used + 3 * 2**20 / have["MemTotal"]
    if limit > 0.9:
        pytest.skip("less than 3 GiB of memory to spare")
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{limit:.3f}")
    out = tmp_path / "d"
    code, said = _finished(start(*_command("build", planted, out), fault="hog", times=1))
    assert code == 0, said
    assert [file.name for file in tmp_path.glob("fault.*")] == ["fault.0"]
    assert_as_undisturbed(out, undisturbed)


@pytest.mark.parametrize("where", ["--local", None])
def test_a_picture_that_kills_every_process_is_set_aside(
    start_at: Start, pictures: Path, tmp_path: Path, where: str | None
) -> None:
    """In one process, the command dies with it; on Ray, only actors do."""
    images, out = tmp_path / "in", tmp_path / "d"
    shutil.copytree(pictures, images)
    poison = images / "odd" / "05.jpg"
    poison.write_bytes(poison.read_bytes() + MARK)
    command = _command("build", images, out, *([where] if where else []), "--max-failed-share", "1")
    deaths, code, said = 0, -signal.SIGSEGV, ""
    while code == -signal.SIGSEGV and deaths < 10:
        code, said = _finished(start_at(*command, fault="die"))
        deaths += code == -signal.SIGSEGV
    assert code == 0, said
    assert deaths == (3 if where else 0)
    dataset = Dataset.open(str(out))
    assert dataset.status().rejects == {"failed:ProcessDied": 1}
    assert dataset.status().samples == 9
    assert verify(dataset) == []
    (record,) = (out / "quarantine").iterdir()
    assert json.loads(record.read_text()) == {"detail": "the process died: SIGSEGV"}
    assert not (out / "attempts").exists()


@pytest.mark.parametrize("where", ["--local", None])
def test_a_picture_that_takes_for_ever_is_set_aside(
    start_at: Start, pictures: Path, tmp_path: Path, where: str | None
) -> None:
    """In one process, the command ends and names it; on Ray, only an actor does."""
    images, out = tmp_path / "in", tmp_path / "d"
    shutil.copytree(pictures, images)
    poison = images / "odd" / "05.jpg"
    poison.write_bytes(poison.read_bytes() + MARK)
    more = ["--image-timeout", "2", "--max-failed-share", "1"]
    command = _command("build", images, out, *more, *([where] if where else []))
    if where:
        code, said = _finished(start_at(*command, fault="hang"))
        assert code == 1, said
        assert f"longer than 2 s at {poison.as_uri()}" in said.replace("\n", "")
    code, said = _finished(start_at(*command, fault="hang"))
    assert code == 0, said
    dataset = Dataset.open(str(out))
    assert dataset.status().rejects == {"failed:ProcessDied": 1}
    assert dataset.status().samples == 9
    (record,) = (out / "quarantine").iterdir()
    assert json.loads(record.read_text()) == {"detail": "it took longer than 2 s"}
    assert not (out / "attempts").exists()


@pytest.mark.parametrize("where", [None])
def test_a_build_on_ray_that_hangs_ends_with_one_message(
    start_at: Start, planted: Path, tmp_path: Path, where: None
) -> None:
    out = tmp_path / "d"
    patient = ["--image-timeout", "0", "--no-progress-timeout", "3"]
    code, said = _finished(start_at(*_command("build", planted, out, *patient), fault="hang"))
    assert code == 1, said
    assert "no unit ended for 3 s" in said
    assert "Traceback" not in said
    assert not list((out / "attempts").glob("*"))


@pytest.mark.parametrize("where", ["--local", None])
def test_a_place_that_is_sick_for_a_while_leaves_no_row(
    start_at: Start, planted: Path, undisturbed: Path, tmp_path: Path, where: str | None
) -> None:
    """On Ray the actor leaves after two units, and the one after it goes on."""
    out = tmp_path / "d"
    recipe = tmp_path / "recipe.yaml"
    text = (TESTS.parent / "recipes" / "canny.yaml").read_text()
    recipe.write_text(f"{text}\nexecution:\n  failures_before_leaving: 2\n")
    given = ["--images", str(planted), "--out", str(out), *SMALL]
    command = [sys.executable, "-m", "pipeline", "build", str(recipe), *given, "--actors", "1"]
    command += [where] if where else []
    code, said = _finished(start_at(*command, fault="sick", times=3))
    assert code == 0, said
    assert "Input/output error" in said
    assert_as_undisturbed(out, undisturbed)


@pytest.mark.parametrize("where", ["--local", None])
def test_a_place_that_stays_sick_ends_the_build_with_one_message(
    start_at: Start, planted: Path, undisturbed: Path, tmp_path: Path, where: str | None
) -> None:
    out = tmp_path / "d"
    command = _command("build", planted, out, *([where] if where else []))
    code, said = _finished(start_at(*command, fault="sick"))
    assert code == 1, said
    assert "Input/output error" in said
    assert "Traceback" not in said
    assert not list(out.glob("commits/*"))
    code, said = _finished(start_at(*command))
    assert code == 0, said
    assert_as_undisturbed(out, undisturbed)


@pytest.mark.parametrize(
    ("where", "number", "code"),
    [
        ("--local", signal.SIGTERM, 143),
        ("--local", signal.SIGINT, 130),
        ("--local", signal.SIGHUP, 129),
        (None, signal.SIGTERM, 143),  # which Ray handles itself, unless told otherwise
        (None, signal.SIGINT, 130),
    ],
)
def test_a_stopped_build_says_so_and_resumes(
    start: Start,
    planted: Path,
    undisturbed: Path,
    tmp_path: Path,
    where: str | None,
    number: signal.Signals,
    code: int,
) -> None:
    out = tmp_path / "d"
    command = _command("build", planted, out, *([where] if where else []))
    process = start(*command, "--threads", "1", fault="linger")
    _wait_for_commits(out, 1)
    process.send_signal(number)
    ended, said = _finished(process, 30)
    assert ended == code, said
    assert f"stopped by {number.name}" in said
    assert "Traceback" not in said
    assert not list((out / "attempts").glob("*"))
    ended, said = _finished(start(*command, *(["--local"] if number != signal.SIGTERM else [])))
    assert ended == 0, said
    assert_as_undisturbed(out, undisturbed)


@pytest.mark.parametrize("where", ["--local", None])
def test_a_killed_driver_is_followed_by_the_same_command(
    start: Start, planted: Path, undisturbed: Path, tmp_path: Path, where: str | None
) -> None:
    out = tmp_path / "d"
    command = _command("build", planted, out, *([where] if where else []))
    process = start(*command, "--threads", "1", fault="linger")
    _wait_for_commits(out, 2)
    process.kill()
    process.communicate()
    code, said = _finished(start(*command))
    assert code == 0, said
    assert_as_undisturbed(out, undisturbed)


def test_two_builds_at_once_make_one_set_of_commits(
    start: Start, planted: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "d"
    command = _command("build", planted, out, "--local")
    both = [start(*command, fault="linger") for _ in range(2)]
    for process in both:
        code, said = _finished(process)
        assert code == 0, said
    assert len(list((out / "commits").iterdir())) == len(Dataset.open(str(out)).unit_ids)
    assert_as_undisturbed(out, undisturbed)
    other = [*command, "--set", "seed=7"]
    code, said = _finished(start(*other))
    assert code == 1
    assert "belongs to recipe" in said
