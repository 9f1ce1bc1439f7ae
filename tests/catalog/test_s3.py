"""The same promises on object storage, spoken over the real protocol."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import s3fs

from catalog import storage
from catalog.dataset.commits import Attempt, commit_unit, read_commits
from catalog.dataset.dataset import Dataset
from catalog.dataset.verify import verify
from catalog.errors import PlaceError, StorageUnavailable
from catalog.source.listing import list_parts
from catalog.source.parts import Part, scan_part
from tests.faulty_s3 import FaultyS3, Trouble


def test_create_once_and_publish_never_replace(s3: str, tmp_path: Path) -> None:
    (tmp_path / "two").write_bytes(b"two")
    uri = f"{s3}/once/file"
    storage.create_once(uri, b"one")
    with pytest.raises(FileExistsError):
        storage.create_once(uri, b"two")
    with pytest.raises(FileExistsError):
        storage.publish(tmp_path / "two", uri)
    assert storage.read_bytes(uri) == b"one"
    storage.write_atomic(uri, b"three")
    assert storage.read_bytes(uri) == b"three"


def test_of_racing_creators_exactly_one_wins(s3: str) -> None:
    uri, won = f"{s3}/race/commit", []

    def create(number: int) -> None:
        try:
            storage.create_once(uri, b"%d" % number)
        except FileExistsError:
            return
        won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert storage.read_bytes(uri) == b"%d" % won[0]


@pytest.mark.parametrize("write", ["create_once", "publish"])
@pytest.mark.parametrize(
    ("trouble", "each", "expected"),
    [("409", 2, None), ("409", 1, StorageUnavailable), ("412", 1, FileExistsError)],
)
def test_a_name_that_two_write_at_once_is_tried_again(
    s3: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: str,
    trouble: Trouble,
    each: int,
    expected: type[Exception] | None,
) -> None:
    """S3 may answer that there was a conflict; some storages say less where a name is taken."""
    (tmp_path / "content").write_bytes(b"content")

    def create(uri: str) -> None:
        if write == "create_once":
            storage.create_once(uri, b"content")
        else:
            storage.publish(tmp_path / "content", uri)

    host, port = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://").split(":")
    with FaultyS3((host, int(port)), (trouble,), each=each) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_port}")
        s3fs.S3FileSystem.clear_instance_cache()
        uri = f"{s3}/conflict-{write}-{each}"
        with pytest.raises(expected) if expected else nullcontext():
            create(f"{uri}/a")
            create(f"{uri}/b")
        proxy.shutdown()
    monkeypatch.undo()
    s3fs.S3FileSystem.clear_instance_cache()
    assert proxy.met[trouble] >= 1
    assert storage.list_names(uri) == ([] if expected else ["a", "b"])


def test_ranges_sizes_and_listings(s3: str) -> None:
    folder = f"{s3}/listing"
    assert storage.list_names(folder) == []
    assert not storage.exists(f"{folder}/a")
    storage.write_atomic(f"{folder}/a", b"0123456789")
    assert storage.list_names(folder) == ["a"]
    storage.write_atomic(f"{folder}/b", b"")  # a cached listing would not show it
    assert storage.list_names(folder) == ["a", "b"]
    storage.write_atomic(f"{folder}/c/d", b"1")
    walked = storage.walk(folder)
    assert [(entry.name, entry.bytes) for entry in walked] == [("a", 10), ("b", 0), ("c/d", 1)]
    assert all(abs(entry.modified - time.time()) < 60 for entry in walked)
    assert storage.modified(f"{folder}/a") == walked[0].modified
    with pytest.raises(FileNotFoundError):
        storage.modified(f"{folder}/none")
    assert storage.walk(f"{folder}/none") == []
    assert storage.read_bytes(f"{folder}/a", 3, 4) == b"3456"
    assert storage.read_bytes(f"{folder}/a", 8) == b"89"
    assert storage.size(f"{folder}/a") == 10
    with storage.open_binary(f"{folder}/a") as file:
        file.seek(5)
        assert file.read() == b"56789"
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(f"{folder}/none")


def test_a_dataset_is_committed_and_verified(
    s3: str, tmp_path: Path, make_dataset: Callable[..., Dataset], make_sample: Callable[[int], Any]
) -> None:
    dataset = make_dataset(f"{s3}/dataset", tmp_path, [[0, 1], [2]])
    assert dataset.view().read(2) == make_sample(2)
    assert verify(dataset) == []
    assert dataset.write_subset(2, policy="top", seed=0).read(1) == make_sample(1)
    assert dataset.subsets() == ["2"]


def test_a_second_attempt_finds_the_first(
    s3: str, tmp_path: Path, make_attempt: Callable[..., Attempt]
) -> None:
    out = f"{s3}/twice"
    assert commit_unit(out, make_attempt(tmp_path / "one", [1]))[1] == "committed"
    assert commit_unit(out, make_attempt(tmp_path / "two", [1]))[1] == "same"
    assert len(read_commits(out)) == 1


def test_images_beside_captions_are_found(s3: str, make_sample: Callable[[int], Any]) -> None:
    storage.write_atomic(f"{s3}/images/a b#1.png", make_sample(1).image)
    storage.write_atomic(f"{s3}/images/a b#1.txt", b"with a caption")
    (part,) = list_parts([f"{s3}/images"]).parts
    (row,) = scan_part(part)
    assert (row.status, row.caption, row.width) == ("ok", "with a caption", 8)


def test_single_keys_and_patterns_have_the_same_beside_them(
    s3: str, make_sample: Callable[[int], Any]
) -> None:
    for at in range(3):
        storage.write_atomic(f"{s3}/keys/{at:03d}.png", make_sample(at).image)
        storage.write_atomic(f"{s3}/keys/{at:03d}.TXT", b"with a caption")
    whole = list_parts([f"{s3}/keys"]).table
    assert list_parts([f"{s3}/keys/{at:03d}.png" for at in range(3)]).table.equals(whole)
    assert list_parts([f"{s3}/keys/*.png"]).table.equals(whole)
    assert list_parts([f"{s3}/keys/{{000..009}}.png"]).table.equals(whole)
    assert whole["txt"].to_pylist() == ["000.TXT", "001.TXT", "002.TXT"]


def test_a_shard_large_enough_for_many_parts_is_published_once(s3: str, tmp_path: Path) -> None:
    """Above 100 MiB the upload is multipart, and just as create-once."""
    large, other = tmp_path / "large.tar", tmp_path / "other.tar"
    with large.open("wb") as file:
        file.truncate((100 << 20) + 1)
    other.write_bytes(b"other")
    storage.publish(large, f"{s3}/large.tar")
    assert storage.size(f"{s3}/large.tar") == (100 << 20) + 1
    for late in (other, large):
        with pytest.raises(FileExistsError):
            storage.publish(late, f"{s3}/large.tar")
    assert storage.sha256_file(f"{s3}/large.tar") == storage.sha256_file(str(large))


_WRITER = """
import sys
from catalog import storage
storage.write_atomic(sys.argv[1], b"from elsewhere")
"""


def write_elsewhere(uri: str) -> None:
    """Write a file from another process, as Ray's workers do."""
    subprocess.run([sys.executable, "-c", _WRITER, uri], check=True)


def test_what_another_process_writes_after_a_listing_is_there(s3: str) -> None:
    folder = f"{s3}/shared"
    storage.write_atomic(f"{folder}/mine.txt", b"1")
    assert storage.list_names(folder) == ["mine.txt"]
    assert not storage.exists(f"{folder}/theirs.txt")
    write_elsewhere(f"{folder}/theirs.txt")
    with storage.open_binary(f"{folder}/theirs.txt") as file:
        assert file.read() == b"from elsewhere"
    assert storage.exists(f"{folder}/theirs.txt")
    assert storage.size(f"{folder}/theirs.txt") == 14
    assert storage.list_names(folder) == ["mine.txt", "theirs.txt"]
    with storage.open_ranges(f"{folder}/theirs.txt") as file:
        assert file.read(4) == b"from"


@pytest.mark.parametrize("source", ["{}", "{}/*.png"])
def test_sources_are_listed_anew(s3: str, source: str, make_sample: Callable[[int], Any]) -> None:
    folder = f"{s3}/growing-{len(source)}"
    storage.write_atomic(f"{folder}/a.png", make_sample(1).image)
    assert list_parts([source.format(folder)]).table.num_rows == 1
    write_elsewhere(f"{folder}/b.png")
    assert list_parts([source.format(folder)]).table.num_rows == 2


def test_an_empty_caption_costs_no_image(s3: str, make_sample: Callable[[int], Any]) -> None:
    """S3 refuses a range of an empty object; a local disk gives nothing, which is the caption."""
    storage.write_atomic(f"{s3}/empty/a.jpg", make_sample(1).image)
    storage.write_atomic(f"{s3}/empty/a.txt", b"")
    (part,) = list_parts([f"{s3}/empty"]).parts
    (row,) = scan_part(part)
    assert (row.status, row.caption) == ("ok", "")
    assert storage.read_bytes(f"{s3}/empty/a.txt", 5, 5) == b""
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(f"{s3}/empty/b.txt", 0, 5)


def test_a_bucket_that_is_not_there_accuses_no_file(
    s3: str, make_sample: Callable[[int], Any]
) -> None:
    storage.write_atomic(f"{s3}/there/a.jpg", make_sample(1).image)
    gone = Part(uri=f"{s3}/there/b.jpg", kind="file")
    assert [row.status for row in scan_part(gone)] == ["failed:FileNotFoundError"]
    with pytest.raises(PlaceError, match="nothing is at s3://no-such-bucket"):
        scan_part(Part(uri="s3://no-such-bucket/b.jpg", kind="file"))


def test_a_storage_that_denies_access_accuses_no_file(s3: str, monkeypatch: Any) -> None:
    import s3fs

    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Access Denied")

    monkeypatch.setattr(s3fs.S3FileSystem, "open", denied)
    with pytest.raises(PlaceError, match="Access Denied"):
        scan_part(Part(uri=f"{s3}/there/a.jpg", kind="file"))


def test_a_name_with_two_colons_is_an_object_of_that_name(s3: str) -> None:
    """fsspec takes ``::`` for a chain of storages, and would read another object."""
    storage.write_atomic(f"{s3}/colons/a", b"another")
    storage.write_atomic(f"{s3}/colons/a::b.jpg", b"this one")
    assert storage.read_bytes(f"{s3}/colons/a::b.jpg") == b"this one"
    assert storage.read_bytes(f"{s3}/colons/a") == b"another"
    listed = list_parts([f"{s3}/colons"]).table["uri"].to_pylist()
    assert [storage.read_bytes(uri) for uri in listed] == [b"this one"]
