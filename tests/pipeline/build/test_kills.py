"""Kills at any moment, many: nothing is lost and nothing doubled."""

import json
import subprocess
import sys
from pathlib import Path

from tests.pipeline.plain_readers import assert_each_sample_once

TESTS = Path(__file__).parents[2]


def test_a_hundred_kills_lose_and_double_nothing(pictures: Path, tmp_path: Path) -> None:
    script = str(TESTS / "faults" / "kill_rounds.py")
    line = [sys.executable, script, str(pictures), str(tmp_path), "100", "7"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    print(seen)
    assert seen["kills"] >= 100
    assert seen["samples"] == 10 * seen["datasets"]
    assert (seen["lost"], seen["duplicated"]) == (0, 0)
    assert (seen["differences"], seen["faults"]) == (0, 0)
    for dataset in tmp_path.glob("built-*"):
        assert_each_sample_once(dataset)
