"""URIs name any file; writes are whole, and of racing creators exactly one wins."""

import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog import storage
from catalog.errors import StorageError

NAMES = st.binary(min_size=1, max_size=60).filter(
    lambda name: not {0, ord("/")} & set(name) and name not in (b".", b"..")
)


@given(st.lists(NAMES, min_size=1, max_size=3))
def test_a_uri_names_any_local_path(names: list[bytes]) -> None:
    path = "/" + os.fsdecode(b"/".join(names))
    uri = storage.file_uri(path)
    assert uri.isascii()
    assert str(storage.local_path(uri)) == path
    assert storage.absolute(uri) == uri == storage.absolute(path)


@pytest.mark.parametrize("uri", ["s3://bucket/key", "memory://a"])
def test_remote_uris_have_no_local_path(uri: str) -> None:
    assert storage.local_path(uri) is None
    assert storage.absolute(uri) == uri


def test_join_and_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.join("a/", "b", "c") == "a/b/c"
    assert storage.join("/", "b") == "//b"
    assert storage.absolute("a b") == storage.file_uri(tmp_path / "a b")


def test_write_atomic_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    uri = str(tmp_path / "below" / "file")
    for data in (b"one", b"two"):
        storage.write_atomic(uri, data)
        assert storage.read_bytes(uri) == data
    assert storage.list_names(str(tmp_path / "below")) == ["file"]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "file")
    storage.write_atomic(uri, b"old")

    def full_disk(file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "sync_file", full_disk)
    for write in (storage.write_atomic, storage.create_once):
        with pytest.raises(OSError, match="No space left"):
            write(uri, b"new")
    assert storage.read_bytes(uri) == b"old"
    assert storage.list_names(str(tmp_path)) == ["file"]


def test_of_racing_creators_exactly_one_wins(tmp_path: Path) -> None:
    uri, writers = str(tmp_path / "commit"), 16
    gate = threading.Barrier(writers)
    won: list[int] = []

    def create(number: int) -> None:
        gate.wait()
        try:
            storage.create_once(uri, b"%d" % number * 1000)
        except FileExistsError:
            return
        won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert storage.read_bytes(uri) == b"%d" % won[0] * 1000
    assert storage.list_names(str(tmp_path)) == ["commit"]


def test_publish_never_replaces(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"one")
    two.write_bytes(b"two")
    uri = str(tmp_path / "shards" / "final")
    storage.publish(one, uri)
    with pytest.raises(FileExistsError):
        storage.publish(two, uri)
    assert storage.read_bytes(uri) == b"one"


def test_ranges_sizes_and_absent_folders(tmp_path: Path) -> None:
    uri = str(tmp_path / "file")
    storage.write_atomic(uri, b"0123456789")
    assert storage.read_bytes(uri, 3, 4) == b"3456"
    assert storage.read_bytes(uri, 8) == b"89"
    assert storage.size(uri) == 10
    assert storage.list_names(str(tmp_path / "none")) == []
    assert not storage.exists(str(tmp_path / "none"))


def test_an_unknown_protocol_says_what_to_do() -> None:
    with pytest.raises(StorageError, match="a local path or a URI that fsspec knows"):
        storage.read_bytes("nosuch://x")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="pipe or a device"):
        storage.read_bytes(str(tmp_path / "pipe"))


def test_walk_lists_all_files_with_sizes_and_times(tmp_path: Path) -> None:
    storage.write_atomic(str(tmp_path / "b" / "c d"), b"12")
    storage.write_atomic(str(tmp_path / "a"), b"")
    os.utime(tmp_path / "a", (1000, 1000))
    found = storage.walk(str(tmp_path))
    assert [(entry.name, entry.bytes) for entry in found] == [("a", 0), ("b/c d", 2)]
    assert found[0].modified == storage.modified(str(tmp_path / "a")) == 1000
    assert storage.walk(str(tmp_path / "none")) == []


def test_walk_reads_every_store_s_word_for_the_time(tmp_path: Path) -> None:
    before = time.time()
    uri = f"memory://{tmp_path}/walk"
    storage.write_atomic(f"{uri}/b/c", b"12")
    (entry,) = storage.walk(uri)
    assert (entry.name, entry.bytes) == ("b/c", 2)
    assert before - 1 <= entry.modified <= time.time() + 1
    assert storage.modified(f"{uri}/b/c") == entry.modified
