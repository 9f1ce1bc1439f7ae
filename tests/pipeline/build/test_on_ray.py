"""On a real Ray: the same bytes as in one process, and our errors by their own names."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from catalog.dataset.verify import differences
from tests.pipeline.in_process import here
from tests.pipeline.ray_head import Head
from tests.rules import ANY_LOOK_FLAGS
from tests.weights import need_file

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

ROOT = Path(__file__).parents[3]
_COMMON = ["--set", "image.resolution=64", "--set", "samples_per_unit=3", *ANY_LOOK_FLAGS]


def command(*arguments: str, head: Head | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command on a cluster, or where it starts a Ray of its own."""
    line = [sys.executable, "-m", "pipeline", *arguments]
    environment = None if head is None else head.environment | {"RAY_ADDRESS": head.address}
    return subprocess.run(
        line, capture_output=True, text=True, timeout=240, check=False, env=environment, cwd=ROOT
    )


@pytest.fixture(scope="module")
def on_ray(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ray") / "d"
    sources = [str(pictures / "even"), str(pictures / "odd")]
    done = command("build", "canny", "--images", *sources, "--out", str(out), *_COMMON)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 committed" in done.stdout
    return out


def test_ray_and_one_process_give_the_same_bytes(
    pictures: Path, on_ray: Path, tmp_path: Path
) -> None:
    sources = [str(pictures / "odd"), str(pictures / "even")]
    out = str(tmp_path / "d")
    done = command("build", "canny", "--local", "--images", *sources, "--out", out, *_COMMON)
    assert done.returncode == 0, done.stderr
    assert differences(str(on_ray), out) == []
    compared = command("verify", out, "--against", str(on_ray))
    assert compared.returncode == 0
    assert "byte-identical" in compared.stdout


def test_a_finished_build_starts_no_ray(on_ray: Path) -> None:
    done = command("build", "canny", "--out", str(on_ray), *_COMMON)
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout
    assert "ray" not in done.stderr.lower()


def test_an_error_inside_an_actor_is_one_message(
    head: Head, pictures: Path, on_ray: Path, tmp_path: Path
) -> None:
    out = tmp_path / "d"
    planned = command("plan", "canny", "--images", str(pictures), "--out", str(out), *_COMMON)
    assert planned.returncode == 0, planned.stderr
    (out / "shards").write_text("a file where a folder must be")
    done = command("build", "canny", "--out", str(out), *_COMMON, head=head)
    assert done.returncode == 1
    assert "error: unit" in done.stderr
    assert "the same command resumes" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.fixture(scope="module")
def edges(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset of HED's maps, made in one process."""
    need_file("hed_bsds500")
    out = str(tmp_path_factory.mktemp("near") / "d")
    here("build", "hed", "--local", "--images", str(pictures), "--out", out, *_COMMON)
    return out


@pytest.mark.parametrize("actors", [1, 2])
def test_a_network_gives_the_same_bytes_on_any_number_of_actors(
    head: Head, pictures: Path, edges: str, tmp_path: Path, actors: int
) -> None:
    far = str(tmp_path / "far")
    sources = ["--images", str(pictures), *_COMMON]
    done = command("build", "hed", "--actors", str(actors), "--out", far, *sources, head=head)
    assert done.returncode == 0, done.stderr
    assert differences(edges, far) == []


def test_captions_from_actors_of_their_own_are_the_same(
    head: Head, pictures: Path, random_blip: Path, tmp_path: Path
) -> None:
    """Those actors caption each image once; those that annotate find every text there."""
    blip = ["--set", "captions.captioner=blip", "--set", f"captions.model={random_blip}"]
    common = ["build", "canny", "--images", str(pictures), *_COMMON, *blip]
    near, far = tmp_path / "near" / "d", tmp_path / "far" / "d"
    here(*common, "--local", "--out", str(near))
    split = command(*common, "--split-captions", "--out", str(far), head=head)
    assert split.returncode == 0, split.stderr
    assert [name for name in differences(str(near), str(far)) if "commits/" not in name] == []
    (log,) = (far / "logs").glob("*.jsonl")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    batches = [event["caption_batches"] for event in events if event["event"] == "unit"]
    assert batches == [0, 0, 0, 0]


def test_an_actor_larger_than_every_node_is_refused(
    head: Head, pictures: Path, tmp_path: Path
) -> None:
    out = str(tmp_path / "d")
    sizes = ["--cpus-per-actor", "4096"]
    done = command(
        "build", "canny", "--images", str(pictures), "--out", out, *_COMMON, *sizes, head=head
    )
    assert done.returncode == 1
    assert "no room for an actor of 4096 CPUs" in done.stderr
    assert "--actors" in done.stderr
