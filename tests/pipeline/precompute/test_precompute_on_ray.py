"""The command on a real Ray: the latents of one process, and a mistake in one message."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.pipeline.build.test_on_ray import _COMMON, command
from tests.pipeline.in_process import here
from tests.pipeline.ray_head import Head
from tests.random_base import write_random_base

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def test_units_on_ray_and_here_are_the_same(pictures: Path, tmp_path: Path, head: Head) -> None:
    """Also where one of them was damaged at first: the others are there, and the call resumes."""
    base, out = str(tmp_path / "base"), str(tmp_path / "d")
    write_random_base(base, resolutions=2, layers=1)
    here("build", "canny", "--local", "--images", str(pictures), "--out", out, *_COMMON)
    asked = ("precompute", out, "--base", base, "--stored")
    shard = sorted(Path(out, "shards").glob("*.tar"))[-1]
    whole = shard.read_bytes()
    shard.write_bytes(bytes(len(whole)))
    damaged = command(*asked, "fp32", head=head)
    assert damaged.returncode == 1
    assert "changed after the commit" in damaged.stderr
    assert "the same command resumes" in damaged.stderr
    shard.write_bytes(whole)
    said = here(*asked, "fp32", "--local")
    assert "encoding: 3 of 4 units are done" in said
    full, half = _encoded(said), _encoded(here(*asked, "fp16", "--local"))
    assert full.keys() == half.keys()
    for name, array in full.items():  # each with its own number of threads, which moves last bits
        assert array.dtype == np.float32
        assert np.allclose(array, half[name], rtol=2e-3, atol=1e-4)


def _encoded(said: str) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for file in Path(said.rpartition(" in ")[2].strip()).glob("*.safetensors"):
        arrays |= load_file(file)
    return arrays
