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


def _on(head: Head, *arguments: str) -> str:
    done = command(*arguments, head=head)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_units_on_ray_and_here_are_the_same(pictures: Path, tmp_path: Path, head: Head) -> None:
    base, out = str(tmp_path / "base"), str(tmp_path / "d")
    write_random_base(base, resolutions=2, layers=1)
    here("build", "canny", "--local", "--images", str(pictures), "--out", out, *_COMMON)
    found = []
    for stored, where in (("fp32", ()), ("fp16", ("--local",))):
        asked = ("precompute", out, "--base", base, "--stored", stored, *where)
        said = here(*asked) if where else _on(head, *asked)
        assert "encoded: 10 samples in 4 units" in said
        folder = Path(said.rpartition(" in ")[2].strip())
        arrays: dict[str, np.ndarray] = {}
        for file in folder.glob("*.safetensors"):
            arrays |= load_file(file)
        found.append(arrays)
    full, half = found
    assert full.keys() == half.keys()
    for name, array in full.items():  # each with its own number of threads, which moves last bits
        assert array.dtype == np.float32
        assert np.allclose(array, half[name], rtol=2e-3, atol=1e-4)

    shard = next(Path(out, "shards").glob("*.tar"))
    shard.write_bytes(bytes(shard.stat().st_size))
    again = command("precompute", out, "--base", base, "--no-text", "--actors", "1", head=head)
    assert again.returncode == 1
    assert "changed after the commit" in again.stderr
    assert "the same command resumes" in again.stderr
