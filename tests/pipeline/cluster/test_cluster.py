"""On clusters of this machine alone: jobs are submitted, run again, and lose a node on the way."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from catalog.dataset.verify import differences
from pipeline.build.build import BuildResult
from pipeline.errors import Exit
from pipeline.recipe.recipe import load_recipe
from tests.pipeline.ray_head import Head
from tests.rules import ANY_LOOK

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

ROOT = Path(__file__).parents[3]
SMALL = ["image.resolution=64", "samples_per_unit=3", *ANY_LOOK]
OVERRIDES = [word for override in SMALL for word in ("--set", override)]


_RECORDER = """
import sys, time, ray
from types import SimpleNamespace
from pipeline.build import prometheus

ray.init(log_to_driver=False)
report = SimpleNamespace(counts={"ok": 8, "rejected:coverage": 2}, stages={"decode": 1.5})
for _ in range(3):
    prometheus.record(report)
sys.stdin.read()
"""


COUNTED = {
    "ray_factory_units_total": 3,
    "ray_factory_images_total ok": 24,
    "ray_factory_images_total rejected": 6,
    "ray_factory_rejects_total rejected:coverage": 6,
    "ray_factory_stage_seconds_total decode": 4.5,
    "ray_factory_unit_stage_seconds_count decode": 3,
    "ray_factory_refused_map_share_count": 3,
}


def test_prometheus_reads_what_a_process_counted(head: Head) -> None:
    before = figures(head)
    recorder = subprocess.Popen(
        [sys.executable, "-c", _RECORDER],
        env=head.environment | {"RAY_ADDRESS": head.address, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline, counted = time.monotonic() + 60, {}
    try:
        while counted != COUNTED and time.monotonic() < deadline:
            time.sleep(0.2)
            now = figures(head)
            grown = {name: round(value - before.get(name, 0), 3) for name, value in now.items()}
            counted = {name: by for name, by in grown.items() if by}
    finally:
        _, said = recorder.communicate(b"", timeout=30)
    assert recorder.returncode == 0, said
    assert counted == COUNTED


def figures(head: Head) -> dict[str, float]:
    """Scrape the node; return our totals and counts by name and tag."""
    try:
        with urllib.request.urlopen(head.metrics, timeout=5) as answer:
            lines = [line for line in answer.read().decode().splitlines() if "factory_" in line]
    except OSError:  # it does not serve yet
        return {}
    found = re.findall(r"^(ray_factory_\w+_(?:total|count))\{(.*)\} (\S+)$", "\n".join(lines), re.M)
    tag = re.compile(r'\b(?:rule|stage|status)="([^"]+)"')
    totals: Counter[str] = Counter()
    for name, tags, value in found:  # a series a process
        totals[" ".join([name, *tag.findall(tags)])] += float(value)
    return dict(totals)


def submit(head: Head, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [str(ROOT / "examples" / "cluster" / "submit.sh"), *arguments]
    return subprocess.run(
        line, env=head.environment, capture_output=True, text=True, timeout=90, check=False
    )


def test_a_job_is_followed_to_its_end_and_the_same_one_resumes(
    head: Head, pictures: Path, tmp_path: Path, make: Callable[..., BuildResult]
) -> None:
    out = tmp_path / "d"
    command = ["build", "canny", "--images", str(pictures), "--out", str(out), *OVERRIDES]
    first = submit(head, *command)
    assert first.returncode == Exit.DONE, first.stdout + first.stderr
    assert "4 of 4 committed" in first.stdout
    again = submit(head, *command)
    assert again.returncode == Exit.DONE, again.stdout + again.stderr
    assert f"nothing to do: {out} is complete" in again.stdout
    make(pictures, tmp_path / "local")
    assert differences(str(out), str(tmp_path / "local")) == []


def test_a_job_that_fails_ends_with_its_own_exit_code(head: Head, tmp_path: Path) -> None:
    done = submit(head, "build", "cany", "--out", str(tmp_path / "d"))
    assert done.returncode == Exit.USAGE
    assert "no recipe at 'cany'" in done.stdout


def test_doctor_looks_at_the_nodes_of_the_cluster(head: Head, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "pipeline", "doctor", "--recipe", "canny"]
    done = subprocess.run(
        [*line, "--out", str(tmp_path / "d"), "--device", "cuda"],
        env=head.environment | {"RAY_ADDRESS": head.address},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == Exit.DONE, done.stdout + done.stderr
    assert "weights on " in done.stdout
    assert "warning  device: cuda wanted; no GPU is up" in done.stdout
    assert "warning  captioner on " in done.stdout
    assert done.stdout.endswith("2 warnings, 0 faults\n")


@pytest.fixture
def large_pictures(tmp_path: Path) -> Path:
    """Pictures that take a while, so that a build of them is still running when a node goes."""
    folder = tmp_path / "large"
    folder.mkdir()
    generator = np.random.default_rng(3)
    for number in range(40):
        coarse = generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        large = Image.fromarray(coarse).resize((1200 + number, 1200), Image.Resampling.BICUBIC)
        large.save(folder / f"{number:02d}.jpg", quality=90)
    return folder


def test_a_node_that_goes_in_mid_build_changes_no_byte(
    large_pictures: Path,
    tmp_path: Path,
    make: Callable[..., BuildResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray._private import utils
    from ray.cluster_utils import Cluster

    # A Ray that is started beside this one, with no address, must not join it.
    monkeypatch.setattr(utils, "write_ray_address", lambda *_: None)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # Ray's test cluster has no token to hand on
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    out = tmp_path / "d"
    settings = {"health_check_period_ms": 1000}  # of a node that went; else three seconds
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": settings}
    )
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        line = [sys.executable, "-m", "pipeline", "build", "canny", "--out", str(out)]
        line += ["--images", str(large_pictures), "--set", "samples_per_unit=1"]
        line += ["--set", "captions.captioner=sidecar"]
        building = subprocess.Popen(
            [*line, "--actors", "2", "--set", "execution.min_actors=2"],
            env=os.environ | {"RAY_ADDRESS": cluster.address},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        committed, worker = wait_for_a_unit(out, building)
        raylet = psutil.Process(worker).ppid()
        (working,) = [node for node in nodes if raylet in raylets(node)]
        cluster.remove_node(working, allow_graceful=False)
        assert building.poll() is None
        said, _ = building.communicate(timeout=60)
    finally:
        cluster.shutdown()
    assert building.returncode == Exit.DONE, said
    assert "40 of 40 committed" in said
    assert committed < 40
    recipe = load_recipe("canny", ["samples_per_unit=1", "captions.captioner=sidecar"])
    make(large_pictures, tmp_path / "local", recipe=recipe)
    assert differences(str(out), str(tmp_path / "local")) == []


def raylets(node: Any) -> list[int]:
    return [found.process.pid for found in node.all_processes["raylet"]]


def wait_for_a_unit(out: Path, building: subprocess.Popen[str]) -> tuple[int, int]:
    """Wait until a unit is committed; return how many are, and the process of the last one."""
    deadline = time.monotonic() + 45
    while time.monotonic() < deadline and building.poll() is None:
        lines = [line for log in out.glob("logs/*.jsonl") for line in log.read_text().splitlines()]
        events = [json.loads(line) for line in lines if line.endswith("}")]
        units = [event for event in events if event["event"] == "unit"]
        if units:
            return len(units), int(units[-1]["worker"].rpartition(":")[2])
        time.sleep(0.05)
    building.kill()
    raise AssertionError(f"no unit was committed: {building.communicate()[0]}")
