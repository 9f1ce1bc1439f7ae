"""What takes for ever is told of, and nothing else is."""

import os
import subprocess
import sys
import threading
from pathlib import Path

from pipeline.unit.watch import watching

TESTS = Path(__file__).parents[2]


def test_an_image_that_takes_too_long_is_named_while_it_does() -> None:
    named: list[str] = []
    told = threading.Event()

    def end(sha256s: object) -> None:
        named.append(str(sha256s))
        told.set()

    with watching(0.3, end) as watch:
        with watch(["quick"]):
            pass
        with watch(["for ever"]), watch([str(number) for number in range(100)]):
            assert told.wait(10)  # a batch may take as long as its images
    assert named == ["['for ever']"]


def test_without_a_limit_nothing_watches() -> None:
    before = threading.active_count()
    with watching(0, lambda _: None) as watch, watch(["a"]):
        assert threading.active_count() == before


def test_work_that_lets_no_thread_run_is_ended_with_a_traceback() -> None:
    script = """
import ctypes
from pipeline.unit.watch import watching
with watching(0.5, print) as watch, watch(["a"]):
    import time
    time.sleep(0.2)
    ctypes.PyDLL(None).sleep(100)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "Timeout" in done.stderr


def test_alone_it_ends_its_process_by_a_signal(tmp_path: Path) -> None:
    script = "from pipeline.unit.watch import alarmed\nwith alarmed(0.2)(['a']):\n  input()"
    reader, writer = os.pipe()
    done = subprocess.run([sys.executable, "-c", script], stdin=reader, check=False, timeout=60)
    os.close(writer)
    os.close(reader)
    assert done.returncode == -14
