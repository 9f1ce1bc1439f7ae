"""A build from object storage to object storage has the bytes of the local one."""

import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from catalog import storage
from catalog.dataset.dataset import Dataset
from catalog.dataset.verify import verify
from pipeline.build.build import BuildResult
from tests.faulty_s3 import FaultyS3

s3fs = pytest.importorskip("s3fs", reason="the extra s3 is not installed")


def test_a_build_on_s3_has_the_local_bytes_and_resumes(
    s3: str, pictures: Path, tmp_path: Path, make: Callable[..., BuildResult]
) -> None:
    make(pictures, tmp_path / "local")
    fs = fsspec.filesystem("s3")
    fs.put(f"{pictures}/", f"{s3}/pictures/", recursive=True)
    out = f"{s3}/d"
    assert make(f"{s3}/pictures", out).status.samples == 10
    files = {path.name: path.read_bytes() for path in (tmp_path / "local" / "shards").iterdir()}
    assert len(files) == 8
    assert {name: fs.cat_file(f"{out}/shards/{name}") for name in files} == files
    assert verify(Dataset.open(out)) == []
    fs.rm(f"{out}/commits/{Dataset.open(out).unit_ids[1]}.json")
    assert make(f"{s3}/pictures", out).units_run == 1
    assert not make(f"{s3}/pictures", out).changed


def test_a_storage_in_trouble_changes_no_byte(
    s3: str,
    pictures: Path,
    tmp_path: Path,
    make: Callable[..., BuildResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every fifth request meets an error, a delay, a reset or an answer that gets lost."""
    make(pictures, tmp_path / "local")
    fsspec.filesystem("s3").put(f"{pictures}/", f"{s3}/pictures/", recursive=True)
    host, port = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://").split(":")
    troubles = ("500", "503", "reset", "slow", "lost answer")
    with FaultyS3((host, int(port)), troubles, each=5) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_port}")
        s3fs.S3FileSystem.clear_instance_cache()
        out = f"{s3}/troubled"
        assert make(f"{s3}/pictures", out).status.samples == 10
        proxy.shutdown()
    monkeypatch.undo()
    s3fs.S3FileSystem.clear_instance_cache()
    print(dict(proxy.met))
    assert min(proxy.met[trouble] for trouble in troubles) >= 3
    fs = fsspec.filesystem("s3")
    files = {path.name: path.read_bytes() for path in (tmp_path / "local" / "shards").iterdir()}
    assert {name: fs.cat_file(f"{out}/shards/{name}") for name in files} == files
    assert verify(Dataset.open(out)) == []


def test_a_storage_that_is_gone_fails_no_image(
    s3: str,
    pictures: Path,
    tmp_path: Path,
    make: Callable[..., BuildResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The unit fails and is tried again; its images are not recorded as broken."""
    fs = fsspec.filesystem("s3")
    fs.put(f"{pictures}/", f"{s3}/gone/", recursive=True)
    real, asked = storage.read_bytes, Counter[str]()

    def gone(uri: str, *place: int) -> bytes:
        asked[uri] += 1
        if uri.startswith(f"{s3}/gone") and asked[uri] == 1 and uri.endswith(".jpg"):
            with storage.remote(uri):
                raise ConnectionResetError("planted")
        return real(uri, *place)

    monkeypatch.setattr(storage, "read_bytes", gone)
    result = make(f"{s3}/gone", tmp_path / "d")
    assert result.status.samples == 10
    assert result.status.rejects == {}
