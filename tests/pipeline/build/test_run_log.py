"""A build's log: whole where it can be written, and never what ends a build."""

import json
import resource
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from catalog import storage
from catalog.errors import StorageUnavailable
from pipeline.build import run_log
from pipeline.build.build import BuildResult
from pipeline.build.run_log import RunLog
from pipeline.errors import BuildError


def test_a_build_whose_log_cannot_be_written_goes_on(
    pictures: Path,
    tmp_path: Path,
    make: Callable[..., BuildResult],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "logs").write_text("a file where the folder belongs")
    assert make(pictures, tmp_path / "d").status.samples == 10
    (told,) = [one.getMessage() for one in caplog.records if one.name == run_log.__name__]
    assert "the build goes on" in told


def test_a_storage_that_comes_back_gets_every_line_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, troubles = storage.write_atomic, iter([False, True, True])

    def write(uri: str, data: bytes) -> None:
        if next(troubles, False):
            raise StorageUnavailable(f"{uri}: planted")
        real(uri, data)

    monkeypatch.setattr(storage, "write_atomic", write)
    monkeypatch.setattr(run_log, "_UPLOAD_EVERY", 0.0)
    with RunLog("memory://run-log/d") as log:
        for number in range(5):
            log.write("unit", index=number)
    fs = fsspec.filesystem("memory")
    parts = sorted(fs.find("/run-log/d/logs"))
    lines = [json.loads(line) for part in parts for line in fs.cat_file(part).splitlines()]
    assert [line["index"] for line in lines] == [0, 1, 2, 3, 4]
    assert len(parts) == 3  # a line is uploaded once, not with every later one again
    assert len(caplog.records) == 1


def test_half_a_line_is_taken_back(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RunLog(str(tmp_path)) as log:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))  # as on a disk with so much room
        try:
            log.write("start")
            (file,) = (tmp_path / "logs").glob("*.jsonl")
            assert file.read_bytes() == b""
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        log.write("done")
    events = [json.loads(line)["event"] for line in file.read_text().splitlines()]
    assert events == ["start", "done"]


def test_a_log_in_trouble_hides_no_error(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder belongs")
    with pytest.raises(BuildError, match="planted"), RunLog(str(tmp_path)):
        raise BuildError("planted")
