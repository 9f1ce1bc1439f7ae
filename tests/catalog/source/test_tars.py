"""Tars are grouped as webdataset does and unpacked as `tar -x` does; what is not taken counts."""

import bz2
import gzip
import io
import os
import subprocess
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from catalog import storage
from catalog.sample import sha256_hex
from catalog.source.rows import SourceRow
from catalog.source.tars import scan_tar

Member = tuple[str, bytes | str]


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (seed, seed, seed)).save(buffer, "PNG")
    return buffer.getvalue()


def packed(*members: Member) -> bytes:
    """Return a tar; a text is the name that a symbolic link leads to, behind a ``=`` a hard one."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type = tarfile.LNKTYPE if content.startswith("=") else tarfile.SYMTYPE
                info.linkname = content.removeprefix("=")
                content = b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def scanned(folder: Path, data: bytes) -> tuple[list[SourceRow], Counter[str]]:
    path = folder / "x.tar"
    path.write_bytes(data)
    passed: Counter[str] = Counter()
    rows = list(scan_tar(str(path), passed=passed))
    for row in rows:
        if row.status == "ok":
            assert row.offset is not None
            held = storage.read_bytes(row.uri, row.offset, row.length)
            assert sha256_hex(held) == row.sha256
    return rows, passed


def captions(rows: list[SourceRow]) -> list[str | None]:
    return [row.caption for row in rows]


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ([("a.png", png(1)), ("a.txt", b"A"), ("b.png", png(2)), ("b.txt", b"B")], ["A", "B"]),
        ([("a.png", png(1)), ("b.png", png(2)), ("a.txt", b"A"), ("b.txt", b"B")], ["A", "B"]),
        ([("a.txt", b"A"), ("b.txt", b"B"), ("a.png", png(1)), ("b.png", png(2))], ["A", "B"]),
        ([("a.png", png(1)), ("a.txt", b"old"), ("a.txt", b"new")], ["new"]),
        ([("a.png", png(1)), ("a.txt", b"A"), ("a.png", png(2)), ("a.txt", b"B")], ["A", "B"]),
        ([("a.png", png(1)), ("a.txt", b"A"), ("b.png", png(3)), ("a.png", png(2))],
         ["A", None, None]),
        ([("a.png", png(1)), ("a.jpg", png(2)), ("a.txt", b"A")], ["A", "A"]),
        ([("x/a.png", png(1)), ("y/a.txt", b"A")], [None]),
    ],
)  # fmt: skip
def test_neighbours_of_one_name_are_a_sample(
    tmp_path: Path, members: list[Member], found: list[str | None]
) -> None:
    assert captions(scanned(tmp_path, packed(*members))[0]) == found


def test_links_are_followed(tmp_path: Path) -> None:
    rows, passed = scanned(
        tmp_path,
        packed(
            ("./raw/c.png", png(1)),
            ("./train/a.png", png(2)),
            ("./train/a.txt", b"shared"),
            ("./train/b.png", png(3)),
            ("./train/b.txt", "=./train/a.txt"),
            ("./train/c.png", "=./raw/c.png"),
            ("./train/c.txt", b"of c"),
            ("./train/e.png", "../raw/c.png"),
            ("./train/f.png", "e.png"),
            ("./train/g.png", "/etc/passwd"),
            ("./train/h.png", "h.png"),
        ),
    )
    assert sorted((row.caption or "", row.sha256 or "") for row in rows) == sorted(
        [
            ("shared", sha256_hex(png(2))),
            ("shared", sha256_hex(png(3))),
            ("of c", sha256_hex(png(1))),
            *[("", sha256_hex(png(1)))] * 3,
        ]
    )
    assert passed == {"links in tars that lead to no member": 2}


def test_names_with_dots_are_samples_where_nothing_else_has_their_key(tmp_path: Path) -> None:
    rows, passed = scanned(
        tmp_path,
        packed(
            ("photo.v2.jpg", png(1)),
            ("photo.v2.txt", b"c1"),
            ("2023.05.17 14.22.PNG", png(2)),
            ("2023.05.17 14.22.txt", b"c2"),
            ("plain.canny.png", png(4)),
            ("plain.jpg", png(3)),
            ("plain.txt", b"c3"),
            ("noext", b"x"),
            ("h.heic", b"x"),
            ("lonely.txt", b"x"),
        ),
    )
    assert captions(rows) == ["c1", "c2", "c3"]
    assert passed == {
        ".canny.png in tars": 1,
        "no suffix in tars": 1,
        ".heic in tars": 1,
        ".txt in tars": 1,
    }


def test_a_text_without_dots_is_that_of_the_only_picture_with_some(tmp_path: Path) -> None:
    rows, passed = scanned(
        tmp_path,
        packed(
            ("0.image.png", png(1)), ("0.txt", b"A"),
            ("1.image.png", png(2)), ("1.image.txt", b"own"), ("1.txt", b"B"),
            ("2.left.png", png(3)), ("2.right.png", png(4)), ("2.txt", b"C"),
        ),
    )  # fmt: skip
    assert captions(rows) == ["A", "own", None, None]
    assert passed == {".txt in tars": 2}


def test_a_second_archive_behind_the_end_is_read(tmp_path: Path) -> None:
    first = packed(("a.png", png(1)), ("a.txt", b"A"), ("b.png", png(2)))
    second = packed(("a.png", png(3)), ("b.png", png(4)), ("b.txt", b"B"))
    rows, passed = scanned(tmp_path, first + second + bytes(2048))
    assert captions(rows) == ["A", None, None, "B"]
    assert not passed
    rows, passed = scanned(tmp_path, first + b"signature" * 100)
    assert captions(rows) == ["A", None]
    assert passed == {"ends of tars that hold no members": 1}


def test_a_second_archive_that_breaks_is_told(tmp_path: Path) -> None:
    first, second = packed(("a.png", png(1))), packed(("b.png", png(2)), ("c.png", png(3)))
    rows, _ = scanned(tmp_path, first + second[:520])
    assert [row.status for row in rows] == ["ok", "failed:TarError"]


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_a_sparse_picture_is_refused(tmp_path: Path, form: str) -> None:
    with (tmp_path / "s.bmp").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    (tmp_path / "t.png").write_bytes(png(1))
    command = ["tar", "-S", f"--format={form}", "-C", tmp_path, "-cf", tmp_path / "x.tar"]
    subprocess.run([*command, "s.bmp", "t.png"], check=True)
    rows, _ = scanned(tmp_path, (tmp_path / "x.tar").read_bytes())
    assert [row.status for row in rows] == ["rejected:sparse_member", "ok"]
    assert rows[0].detail == "a member with holes; pack it without tar -S"


@pytest.mark.parametrize(("pack", "word"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2")])
def test_a_compressed_tar_is_called_so(tmp_path: Path, pack: object, word: str) -> None:
    assert callable(pack)
    (row,), _ = scanned(tmp_path, pack(packed(("a.png", png(1)))))
    assert row.status == "failed:TarError"
    assert f"compressed with {word}" in (row.detail or "")


def test_a_device_is_counted(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with tarfile.open(tmp_path / "p.tar", "w") as tar:
        tar.add(tmp_path / "pipe.png", "pipe.png")
    rows, passed = scanned(tmp_path, (tmp_path / "p.tar").read_bytes())
    assert (rows, passed) == ([], {"devices and pipes in tars": 1})
