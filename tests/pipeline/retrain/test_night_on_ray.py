"""Nights as jobs of a real Ray cluster, with the source and all that is kept on S3."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog import storage
from catalog.dataset.dataset import Dataset
from catalog.dataset.verify import verify
from pipeline.retrain.promotions import current, history
from tests.pipeline.in_process import here
from tests.pipeline.ray_head import Head, ray_head
from tests.pipeline.retrain.test_night import SETS
from tests.random_base import write_random_base

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

SUBMIT = Path(__file__).parents[3] / "examples" / "cluster" / "submit.sh"


@pytest.fixture(scope="module")
def head(s3: str) -> Iterator[Head]:
    """A head whose workers find the S3 server."""
    with ray_head(cpus=2) as running:
        yield running


@pytest.fixture
def schedule(s3: str, pictures: Path, tmp_path: Path) -> Path:
    for path in pictures.rglob("*.*"):
        name = path.relative_to(pictures).as_posix()
        storage.write_atomic(f"{s3}/in/{name}", path.read_bytes())
    write_random_base(str(tmp_path / "base"))
    made = {
        "folder": f"{s3}/nightly",
        "runs": str(tmp_path / "runs"),
        "recipe": "canny",
        "set": SETS,
        "images": [f"{s3}/in"],
        "removals": f"{s3}/removals.txt",
        "subsets": ["5"],
        "latents": {},
        "train": {
            **{"base": str(tmp_path / "base"), "steps": 2, "batch_size": 2, "probe_every": 2},
            **{"probe_steps": 1, "probe_samples": 1, "checkpoint_every": 1},
        },
        "measure": {"samples": 1, "seeds": [0], "steps": 1, "guidance": 1},
        "gate": {"adherence_margin": 10, "size_drop": 0.5},
    }
    file = tmp_path / "nightly.yaml"
    file.write_text(json.dumps(made))
    return file


def told(output: str) -> dict[str, Any]:
    """Return the summary that a night's log ends with."""
    summary: dict[str, Any] = json.loads(
        [line for line in output.splitlines() if line.startswith("{")][-1]
    )
    return summary


def submit(head: Head, config: Path, night: str) -> dict[str, Any]:
    command = [str(SUBMIT), "rebuild", "--config", str(config), "--run-id", night]
    done = subprocess.run(
        command, env=head.environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return told(done.stdout)


def test_a_night_is_a_job_and_goes_on_from_one_that_was_none(
    head: Head, schedule: Path, s3: str
) -> None:
    first = told(here("rebuild", "--config", str(schedule), "--run-id", "one", "--local"))
    assert (first["outcome"], first["samples"]) == ("promoted", 10)
    dataset = Dataset.open(first["dataset"])
    assert dataset.uri.startswith(s3)
    gone, *left = dataset.view().keys()
    storage.write_atomic(f"{s3}/removals.txt", gone.encode())
    storage.remove(f"{s3}/in/even/06.png")
    second = submit(head, schedule, "two")
    assert (second["outcome"], second["changes"]["removed"]) == ("promoted", 2)
    assert [one.night for one in history(f"{s3}/nightly")] == ["one", "two"]
    now = current(f"{s3}/nightly")
    assert now is not None
    assert now.run is not None
    assert (Path(now.run) / "config.json").is_file()
    opened = Dataset.open(now.dataset)
    assert set(opened.view().keys()) < set(left)
    assert verify(opened) == []
    assert opened.snapshots() == ["one", "two"]
    assert storage.exists(f"{s3}/nightly/nights/two/morning.html")
