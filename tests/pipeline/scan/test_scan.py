"""Scans: every source gives the same rows however it is listed, and keeps what lies beside."""

import io
import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from catalog.errors import DatasetError, SourceError
from catalog.source.labels import Labels
from catalog.source.listing import list_parts
from catalog.source.rows import SourceRow
from pipeline.errors import UsageError
from pipeline.scan import chunks as scan_chunks
from pipeline.scan.chunks import (
    Chunk,
    Chunks,
    Executor,
    forget,
    scan_chunk,
    scan_here,
    to_table,
)
from pipeline.scan.duplicates import mark_duplicates
from pipeline.scan.on_ray import scan_on_ray
from pipeline.scan.scan import count_captions, scan, to_ranked_table


def picture(side: int = 8, colour: str = "red", kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side + 2), colour).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, data: bytes | dict[str, Any]) -> Path:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(json.dumps(data).encode() if isinstance(data, dict) else data)
        return path

    return write


def rows_of(*uris: Path, **options: Any) -> list[dict[str, Any]]:
    return scan([str(uri) for uri in uris], **options).table.to_pylist()


HASHES = st.sampled_from(["a", "b", "c", "d"])
STATUS = st.sampled_from(["ok", "ok", "rejected:damaged"])
ROWS = st.lists(st.tuples(HASHES, st.integers(1, 3), STATUS), max_size=12)


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_listing_does_not_show(
    rows: list[tuple[str, int, str]], shuffler: Any
) -> None:
    made = [  # three to a container, and each container's last in front
        SourceRow(
            uri=f"file:///{at // 3}.tar", offset=3 - at % 3, status=status, sha256=sha256,
            width=side, height=4, length=1,
        )
        for at, (sha256, side, status) in enumerate(rows)
    ]  # fmt: skip
    shuffled = list(made)
    shuffler.shuffle(shuffled)
    table = to_ranked_table(mark_duplicates(to_table(made)))
    assert to_ranked_table(mark_duplicates(to_table(shuffled))).equals(table)
    kept = [row for row in table.to_pylist() if row["status"] == "ok"]
    assert sorted(row["sha256"] for row in kept) == sorted(
        {sha256 for sha256, _, status in rows if status == "ok"}
    )
    assert [row["rank"] for row in kept] == list(range(len(kept)))
    places = [(row["uri"], row["offset"]) for row in table.to_pylist()]
    assert sorted(places) == sorted(row.place for row in made)
    for row in kept:
        same = [one.place for one in made if (one.sha256, one.status) == (row["sha256"], "ok")]
        assert (row["uri"], row["offset"]) == min(same)


def test_the_first_of_equal_files_is_kept_and_named(put: Callable[..., Path]) -> None:
    first = put("a/1.png", picture())
    put("b/0.png", picture())
    rows = rows_of(first.parents[1])
    assert [row["status"] for row in rows] == ["ok", "rejected:duplicate"]
    assert rows[0]["uri"] == first.as_uri()
    assert rows[1]["detail"] == f"same bytes as {first.as_uri()}"
    assert rows_of(first.parents[1] / "b", first.parent) == rows


def test_of_equal_files_the_one_that_knows_most_stays_with_what_all_know(
    put: Callable[..., Path],
) -> None:
    put("a.png", picture())
    put("a.json", {"popularity": 3, "mine": 1, "both": 1})
    put("b.png", picture())
    put("b.txt", b"the only caption")
    put("b.json", {"views": 7, "both": 2})
    put("c.png", picture())
    put("other.png", picture(9))
    folder = put("c.txt", b" ").parent
    _, kept, *others = rows_of(folder)
    assert (Path(kept["uri"]).name, kept["status"]) == ("b.png", "ok")
    assert (kept["caption"], kept["popularity"]) == ("the only caption", 3.0)
    assert kept["scores"] == [("both", 2.0), ("mine", 1.0), ("views", 7.0)]
    assert {row["detail"] for row in others} == {f"same bytes as {kept['uri']}"}
    assert rows_of(folder / "c.png", folder / "a.png")[0]["popularity"] == 3.0


def test_a_copy_with_a_label_stays(put: Callable[..., Path]) -> None:
    put("a.png", picture())
    put("a.txt", b"caption")
    put("b.png", picture())
    folder = put("b_ids.png", picture(9)).parent
    labels = Labels(suffix="_ids.png")
    kept, _ = rows_of(folder, labels=labels)
    assert (Path(kept["uri"]).name, kept["caption"]) == ("b.png", "caption")
    assert kept["label"] is not None
    assert kept["detail"] is None


def test_a_source_given_twice_or_inside_another_counts_once(put: Callable[..., Path]) -> None:
    path = put("a/1.png", picture())
    assert len(rows_of(path, path.parent, path.parents[1], path)) == 1


def test_a_damaged_copy_is_no_duplicate(put: Callable[..., Path]) -> None:
    for name in ("a.png", "b.png"):
        folder = put(name, b"no picture").parent
    assert [row["status"] for row in rows_of(folder)] == ["rejected:not_an_image"] * 2


def test_globs_choose_below_the_folder(put: Callable[..., Path]) -> None:
    for at, name in enumerate(("keep/a.png", "keep/b.jpg", "drop/c.png")):
        folder = put(name, picture(8 + at)).parents[1]
    assert len(rows_of(folder)) == 3
    assert [Path(row["uri"]).name for row in rows_of(folder, include=["*.png"])] == [
        "c.png",
        "a.png",
    ]
    assert len(rows_of(folder, exclude=["drop/*"])) == 2
    metadata = scan([str(folder)], include=["*.png"], exclude=["drop/*"]).metadata
    assert metadata["ignored"] == {"excluded": 2}
    assert metadata["include"] == ["*.png"]


def test_what_lies_beside_an_image_is_taken(put: Callable[..., Path]) -> None:
    put("a.png", picture(9))
    put("a.json", {"caption": "from json", "popularity": 4, "aesthetic": 5.5, "nsfw": True})
    put("b.png", picture(8))
    put("b.json", {"text": "from json"})
    folder = put("b.txt", b"from txt\n").parent
    a, b = rows_of(folder)
    assert (a["caption"], a["popularity"], a["scores"]) == ("from json", 4.0, [("aesthetic", 5.5)])
    assert (b["caption"], b["popularity"], b["scores"]) == ("from txt\n", None, [])


@pytest.mark.parametrize(
    ("beside", "caption"),
    [
        ({"caption": "c", "text": "t", "TEXT": "T", "prompt": "p"}, "c"),
        ({"prompt": "p", "TEXT": "T", "text": "t"}, "t"),
        ({"prompt": "p", "TEXT": "T"}, "T"),
        ({"prompt": "p", "title": "none of these"}, "p"),
        ({"caption": None, "text": "t"}, "t"),
        ({"caption": 5, "title": "t"}, None),
        ({"caption": ""}, ""),
    ],
)
def test_a_caption_is_the_first_text_of_the_known_names(
    put: Callable[..., Path], beside: dict[str, Any], caption: str | None
) -> None:
    put("a.json", beside)
    (row,) = rows_of(put("a.png", picture()))
    assert row["caption"] == caption
    path = put("b.parquet", b"")
    columns = {name: [value] for name, value in beside.items()}
    pq.write_table(pa.table({"image": [picture()], **columns}), path)
    found = rows_of(path.parent)
    assert {Path(one["uri"]).name: one["caption"] for one in found} == {
        "a.png": caption,
        "b.parquet": caption,
    }


def test_a_shell_glob_gives_what_its_folder_gives(put: Callable[..., Path]) -> None:
    for at in range(3):
        put(f"{at}.png", picture(8 + at))
        put(f"{at}.json", {"popularity": at})
        folder = put(f"{at}.txt", f"caption {at}".encode()).parent
    whole = rows_of(folder)
    assert [row["caption"] for row in whole] == ["caption 2", "caption 1", "caption 0"]
    assert rows_of(*folder.glob("*.png")) == whole


@pytest.mark.parametrize("said", [b"{", b"[1]", b"\xff", b""])
def test_a_broken_sidecar_costs_only_what_it_says(put: Callable[..., Path], said: bytes) -> None:
    put("a.json", said)
    (row,) = rows_of(put("a.png", picture()).parent)
    assert (row["status"], row["caption"], row["scores"]) == ("ok", None, [])


def test_a_tar_as_img2dataset_writes_it(put: Callable[..., Path]) -> None:
    members = {
        "000000000.jpg": picture(16, kind="JPEG"),
        "000000000.json": json.dumps({"caption": "c", "similarity": 0.3, "url": "u"}).encode(),
        "000000000.txt": b"t",
        "000000001.jpg": picture(12, kind="JPEG"),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    path = put("00000.tar", buffer.getvalue())
    first, second = rows_of(path)
    assert (first["caption"], first["scores"], second["caption"]) == (
        "t",
        [("similarity", 0.3)],
        None,
    )
    for row, data in ((first, members["000000000.jpg"]), (second, members["000000001.jpg"])):
        at = row["offset"]
        assert path.read_bytes()[at : at + row["length"]] == data


def test_a_table_with_bytes_and_one_with_paths(put: Callable[..., Path]) -> None:
    image = put("images/a.png", picture(9))
    columns = {"text": ["one"], "popularity": [2], "pwatermark": [0.1]}
    rows = []
    for name, column in (("bytes", {"jpg": [picture(8)]}), ("paths", {"path": ["images/a.png"]})):
        path = put(f"{name}.parquet", b"")
        pq.write_table(pa.table({**column, **columns}), path)
        rows += rows_of(path)
    for row in rows:
        assert (row["caption"], row["popularity"]) == ("one", 2.0)
        assert row["scores"] == [("pwatermark", 0.1)]
    assert (rows[0]["row"], rows[1]["row"], rows[1]["uri"]) == (0, None, image.as_uri())


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_sizes_are_those_after_rotation(
    put: Callable[..., Path], kind: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    (row,) = rows_of(put("a.jpg", picture(8, kind=kind, exif=exif)))
    lies = 5 <= orientation <= 8
    assert (row["width"], row["height"]) == ((10, 8) if lies else (8, 10))


def test_progress_ends_at_the_last_file(
    put: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = five(put)
    monkeypatch.setattr(scan_chunks, "FILES_A_CHUNK", 1)
    told: list[tuple[int, int]] = []
    scan([str(folder)], progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def five(put: Callable[..., Path]) -> Path:
    """Return a folder of five pictures, two of them equal."""
    for at in range(4):
        folder = put(f"{at}.png", picture(8 + at)).parent
    put("again.png", picture(8))
    return folder


def test_a_scan_goes_on_from_the_pieces_that_are_there(
    put: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = five(put)
    whole = scan([str(folder)])
    monkeypatch.setattr(scan_chunks, "FILES_A_CHUNK", 1)
    pieces = str(tmp_path / "pieces")
    read: list[Chunk] = []
    killed(read, folder, pieces, after=2)
    told: list[tuple[int, int]] = []
    resumed = scan(
        [str(folder)],
        folder=pieces,
        executor=counting(read),
        progress=lambda done, total: told.append((done, total)),
    )
    assert names_of(read) == ["0.png", "1.png", "2.png", "3.png", "again.png"]
    assert told == [(3, 5), (4, 5), (5, 5)]
    assert resumed.table.equals(whole.table)
    forget(pieces)
    assert not Path(pieces).exists()


def test_a_killed_scan_reads_again_what_changed_since(
    put: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Edited, with a new caption, deleted, added: after the kill it is as if scanned at once."""
    folder = five(put)
    monkeypatch.setattr(scan_chunks, "FILES_A_CHUNK", 1)
    pieces = str(tmp_path / "pieces")
    killed([], folder, pieces, after=5)
    put("0.png", picture(20))
    put("1.txt", b"new")
    (folder / "2.png").unlink()
    put("late.png", picture(30))
    read: list[Chunk] = []
    resumed = scan([str(folder)], folder=pieces, executor=counting(read))
    assert names_of(read) == ["0.png", "1.png", "late.png"]
    assert resumed.table.equals(scan([str(folder)]).table)


def killed(read: list[Chunk], folder: Path, pieces: str, *, after: int) -> None:
    """Scan a folder and die after some chunks."""

    def dies(chunks: Sequence[Chunk], perceptual: bool) -> Iterator[int]:
        yield from counting(read)(chunks[:after], perceptual)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan([str(folder)], folder=pieces, executor=dies)


def counting(read: list[Chunk]) -> Executor:
    """Return what scans here and notes what it was given."""

    def run(chunks: Sequence[Chunk], perceptual: bool) -> Iterator[int]:
        read.extend(chunks)
        return scan_here(chunks, perceptual)

    return run


def names_of(chunks: Sequence[Chunk]) -> list[str]:
    """Return the names of the files in some chunks."""
    uris = (uri for chunk in chunks for uri in chunk.listed["uri"].to_pylist())
    return sorted(uri.rpartition("/")[2] for uri in uris)


def test_a_later_scan_reads_only_what_changed(put: Callable[..., Path]) -> None:
    folder = five(put)
    put("0.json", {"captions": ["one", "two"]})
    tar = put("t.tar", b"")
    with tarfile.open(tar, "w") as archive:
        archive.add(put("../a.png", picture(40)), "a.png")
    first = scan([str(folder)])
    assert (first.read, first.unchanged) == (6, 0)
    read: list[Chunk] = []
    same = scan([str(folder)], earlier=first.found, executor=counting(read))
    assert (same.read, same.unchanged, read) == (0, 6, [])
    assert same.table.equals(first.table)
    assert same.metadata == first.metadata
    put("1.txt", b"a caption that came later")
    (folder / "2.png").unlink()
    put("new.png", picture(50))
    later = scan([str(folder)], earlier=same.found, executor=counting(read))
    assert names_of(read) == ["1.png", "new.png"]
    assert later.table.equals(scan([str(folder)]).table)
    os.utime(tar, (0, 0))
    assert scan([str(folder)], earlier=later.found).read == 1
    hashed = scan([str(folder)], earlier=later.found, perceptual=True)
    assert (hashed.read, hashed.unchanged) == (6, 0)  # what was kept has no such hashes


def test_what_lies_elsewhere_is_read_by_each_scan(put: Callable[..., Path]) -> None:
    elsewhere = put("far/a.png", picture(8))
    table = put("near/t.parquet", b"")
    pq.write_table(pa.table({"path": ["../far/a.png"]}), table)
    put("near/fine.png", picture(9))
    first = scan([str(table.parent)], allowed=[str(elsewhere.parent)])
    assert first.table["status"].to_pylist() == ["ok", "ok"]
    put("far/a.png", picture(30))  # the table is as it was
    later = scan([str(table.parent)], allowed=[str(elsewhere.parent)], earlier=first.found)
    assert (later.read, later.unchanged) == (1, 1)
    assert 30 in later.table["width"].to_pylist()


def test_pieces_that_another_scan_tidied_up_are_named(
    put: Callable[..., Path], tmp_path: Path
) -> None:
    def outrun(chunks: Sequence[Chunk], perceptual: bool) -> Iterator[int]:
        yield from scan_here(chunks, perceptual)
        forget(str(tmp_path / "pieces"))

    with pytest.raises(DatasetError, match=r"[0-9a-f]{32}\.parquet does not exist"):
        scan([str(five(put))], folder=str(tmp_path / "pieces"), executor=outrun)


def test_a_chunk_that_is_there_is_not_read_again(put: Callable[..., Path], tmp_path: Path) -> None:
    """Its files are gone: an equal scan beside this one has read them."""
    chunk = Chunk(uri=str(tmp_path / "0.parquet"), listed=list_parts([str(five(put))]).table)
    assert scan_chunk(chunk, False) == 5
    before = Path(chunk.uri).read_bytes()
    shutil.rmtree(tmp_path / "in")
    assert scan_chunk(chunk, False) == 5
    assert Path(chunk.uri).read_bytes() == before


def test_a_chunk_travels_without_the_listing(put: Callable[..., Path], tmp_path: Path) -> None:
    table = list_parts([str(five(put))]).table
    many = pa.concat_tables([table] * 2_000).combine_chunks()
    chunks = Chunks(str(tmp_path), {}).cut(many)
    assert sum(len(chunk) for chunk in chunks) == 10_000
    assert max(len(chunk) for chunk in chunks) <= 1_000
    assert len(pickle.dumps(chunks[3])) < many.nbytes / 5


def test_nothing_found_is_not_remembered(put: Callable[..., Path], tmp_path: Path) -> None:
    folder = put("a.txt", b"").parent
    pieces = str(tmp_path / "pieces")
    with pytest.raises(UsageError, match="no image files"):
        scan([str(folder)], folder=pieces)
    put("a.png", picture())
    assert len(scan([str(folder)], folder=pieces).table) == 1


def test_a_scan_on_ray_is_the_same(
    put: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = five(put)
    monkeypatch.setattr(scan_chunks, "FILES_A_CHUNK", 1)
    here = scan([str(folder)])
    far = scan([str(folder)], folder=str(tmp_path / "pieces"), executor=scan_on_ray)
    assert (far.table, far.metadata) == (here.table, here.metadata)


def test_img2datasets_tables_are_no_images(put: Callable[..., Path]) -> None:
    put("0/a.jpg", picture(8))
    put("1/b.jpg", picture(9))
    pq.write_table(pa.table({"url": ["u"], "key": ["k"]}), put("0.parquet", b""))
    images = put("1.parquet", b"")
    pq.write_table(pa.table({"Image": [picture(10)]}), images)
    found = scan([str(images.parent)])
    table, metadata = found.table, found.metadata
    assert table["status"].to_pylist() == ["ok"] * 3
    assert metadata["ignored"] == {"tables beside the tar or folder that they tell of": 1}


def test_a_column_of_lists_is_told(put: Callable[..., Path]) -> None:
    path = put("t.parquet", b"")
    pq.write_table(pa.table({"image": [[picture()], None]}), path)
    first, second = rows_of(path)
    assert (first["status"], second["status"]) == ("rejected:not_an_image", "rejected:empty_file")
    assert "found a list" in first["detail"]


def test_what_is_seen_and_not_used_is_counted(put: Callable[..., Path]) -> None:
    put("a.png", picture(8))
    put("a.txt", "caf\u00e9".encode("cp1252"))
    put("b.png", picture(9))
    put("b.json", {"captions": ["one", "two", "three"]})
    put("IMG.HEIC", b"")
    put("lonely.txt", b"")
    path = put("t.parquet", b"")
    columns = {"url": ["u"], "clicks": [3], "caption": [None], "ok": [True]}
    pq.write_table(pa.table({"jpg": [picture(10)], **columns}), path)
    found = scan([str(path.parent)])
    table, metadata = found.table, found.metadata
    assert metadata["ignored"] == {
        ".heic": 1,
        ".txt": 1,
        "caption files that are no UTF-8": 1,
        "column ok": 1,
        "column url": 1,
        "further captions of a list": 2,
    }
    assert count_captions(table) == [1, 3]


def test_no_images_say_what_was_there(put: Callable[..., Path], tmp_path: Path) -> None:
    put("a.txt", b"")
    put("README", b"")
    folder = put("b.doc", b"").parent
    with pytest.raises(UsageError, match=r"passed over: 1 \.doc, 1 \.txt, 1 no suffix"):
        scan([str(folder)])
    put("c.png", picture())
    with pytest.raises(UsageError, match=r"passed over: .*1 excluded"):
        scan([str(folder)], exclude=["*.png"])
    (tmp_path / "bare").mkdir()
    with pytest.raises(UsageError, match="passed over: none"):
        scan([str(tmp_path / "bare")])


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere: the path does not exist"):
        scan([str(tmp_path / "nowhere")])
