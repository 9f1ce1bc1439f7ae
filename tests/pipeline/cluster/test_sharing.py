"""What only the driver's machine has is refused in words, before other machines work on it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cluster import sharing
from pipeline.cluster.sharing import missing, require_shared
from pipeline.errors import UsageError
from tests.pipeline.ray_head import Head


def test_a_path_that_another_node_lacks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"12345")
    asked: dict[str, int | None] = {}

    def others(known: dict[str, int | None]) -> dict[str, list[str]]:
        asked.update(known)
        return {"10.0.0.2": list(known), "10.0.0.3": list(known), "10.0.0.4": []}

    monkeypatch.setattr(sharing, "_ask_others", others)
    with pytest.raises(UsageError, match=r"10\.0\.0\.2 and 1 other nodes cannot see it.*--local"):
        require_shared([f"{tmp_path}/a.jpg", tmp_path.as_uri(), "s3://bucket/b.jpg"])
    assert asked == {f"{tmp_path}/a.jpg": 5, str(tmp_path): None}


def test_a_node_tells_what_it_lacks(tmp_path: Path) -> None:
    here, other = tmp_path / "here", tmp_path / "other"
    here.write_bytes(b"12345")
    other.write_bytes(b"another file of that name")
    known = {str(here): 5, str(other): 5, str(tmp_path): None, str(tmp_path / "gone"): None}
    assert missing(known) == [str(other), str(tmp_path / "gone")]


_SCRIPT = """
import sys
from pipeline.cluster import sharing
from pipeline.cluster.connect import connected
import ray
with connected():
    sharing.require_shared([sys.argv[1]])  # this machine is not asked
    nodes = ray.nodes()
    ray.get_runtime_context().__class__.get_node_id = lambda _: "another"
    sharing.require_shared([sys.argv[1]])
    sharing._evidence = lambda _: [("/nowhere", None)]
    try:
        sharing.require_shared([sys.argv[1]])
    except sharing.UsageError as error:
        print(error)
"""


def test_nodes_are_asked(head: Head, tmp_path: Path) -> None:
    """The one node there is plays another machine."""
    environment = head.environment | {"RAY_ADDRESS": head.address, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "/nowhere is on the disk of" in done.stdout
    assert "cannot see it" in done.stdout
