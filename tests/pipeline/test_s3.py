"""A build from object storage to object storage has the bytes of the local one."""

from collections.abc import Callable
from pathlib import Path

import fsspec

from catalog.dataset import Dataset
from catalog.verify import verify
from pipeline.build import BuildResult


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
