"""A pattern names what a shell would make of it, on a disk and in a store."""

from pathlib import Path

import fsspec
import pytest

from catalog.errors import SourceError
from catalog.source.listing import list_parts
from catalog.source.patterns import expand


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.tar", ["00000.tar", "00001.tar", "00010.tar"]),
        ("{00000..00010}.tar", ["00000.tar", "00001.tar", "00010.tar"]),
        ("{0..1}0.jpg", ["10.jpg"]),
        ("{00000,00010}.tar", ["00000.tar", "00010.tar"]),
        ("000{0{0,1},10}.tar", ["00000.tar", "00001.tar", "00010.tar"]),
        ("**/deep.jpg", ["sub/deep.jpg"]),
        ("[x].jpg", ["[x].jpg"]),
        ("{plain}.jpg", ["{plain}.jpg"]),
        ("none.jpg", ["none.jpg"]),
    ],
)
def test_patterns_expand_as_in_a_shell(tmp_path: Path, pattern: str, names: list[str]) -> None:
    store = fsspec.filesystem("memory")
    root = f"/patterns{tmp_path.name}"
    for name in (
        *("00000.tar", "00001.tar", "00010.tar", "10.jpg", "sub/deep.jpg"),
        *("[x].jpg", "x.jpg", "{plain}.jpg"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        store.pipe(f"{root}/{name}", b"")
    assert expand(f"{tmp_path}/{pattern}") == [f"{tmp_path}/{name}" for name in names]
    found = [one.removeprefix("memory://") for one in expand(f"memory://{root}/{pattern}")]
    assert found == [f"{root}/{name}" for name in names]


def test_nothing_that_matches_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nothing matches it"):
        list_parts([f"{tmp_path}/*.jpg"])
    with pytest.raises(SourceError, match="names more than 1,000,000 files"):
        expand(f"{tmp_path}/{{0..99999999999}}.tar")
