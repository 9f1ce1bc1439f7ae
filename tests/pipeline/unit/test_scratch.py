"""What a killed process left in a node's temporary folder goes when the next one begins."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ATTEMPT = """
import sys
from pipeline.unit.worker import _attempt_folder
folder = _attempt_folder("s3://bucket/dataset", sys.argv[1] * 32)
folder.mkdir(parents=True)
(folder / "samples.tar").write_bytes(b"a hundred megabytes")
print(folder, flush=True)
sys.stdin.read()
"""


def attempt(unit: str, temporary: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that holds an attempt's folder of a remote dataset until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", _ATTEMPT, unit],
        env=os.environ | {"TMPDIR": str(temporary)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


@pytest.mark.parametrize("kill", [True, False])
def test_folders_of_killed_workers_are_swept_and_those_of_living_ones_stay(
    tmp_path: Path, kill: bool
) -> None:
    first, left = attempt("a", tmp_path)
    if kill:
        first.kill()
        first.wait()
    second, ours = attempt("b", tmp_path)
    try:
        assert (ours / "samples.tar").exists()
        assert left.exists() != kill
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()
