"""Files by URI, local or remote, with the two writes that the commit protocol rests on.

A URI is a plain local path, a percent-quoted ``file://`` URI (the only form that can name any file,
also one whose name is not UTF-8), or anything that fsspec knows (``s3://bucket/key``).
"""

import contextlib
import hashlib
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote_from_bytes, unquote_to_bytes

import fsspec

from catalog.errors import StorageError

_FILE = "file://"


def local_path(uri: str) -> Path | None:
    """Return the local path that `uri` names, or None where it is remote."""
    if uri.startswith(_FILE):
        return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix(_FILE))))
    return None if "://" in uri else Path(uri)


def file_uri(path: str | os.PathLike[str]) -> str:
    """Return the ``file://`` URI of a local path; any byte a file name may hold survives it."""
    return _FILE + quote_from_bytes(os.fsencode(os.path.abspath(path)))


def absolute(uri: str) -> str:
    """Return `uri` in the form that is stored: ``file://`` for local paths, else unchanged."""
    path = local_path(uri)
    return uri if path is None else file_uri(path)


def join(uri: str, *names: str) -> str:
    """Return the URI of `names` below the folder `uri`."""
    return "/".join([uri.rstrip("/") or "/", *names])


def _remote(uri: str) -> tuple[Any, str]:
    try:
        return cast("tuple[Any, str]", fsspec.core.url_to_fs(uri))
    except (ImportError, ValueError) as error:
        raise StorageError(
            f"cannot use {uri!r}: {error}. Expected a local path or a URI that fsspec knows; "
            "for s3:// install the extra: pip install 'controlnet-factory[s3]'"
        ) from error


def _open_local(path: Path) -> IO[bytes]:
    kind = path.stat().st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # a folder raises below
        raise StorageError(f"{path} is a pipe or a device, which may never end; expected a file")
    return path.open("rb")


@contextmanager
def open_binary(uri: str) -> Iterator[IO[bytes]]:
    """Open `uri` for reading; seekable. Raises OSError as the file system gives it."""
    path = local_path(uri)
    if path is not None:
        with _open_local(path) as file:
            yield file
        return
    fs, name = _remote(uri)
    with fs.open(name, "rb") as file:
        yield file


def read_bytes(uri: str, offset: int = 0, length: int | None = None) -> bytes:
    """Read `length` bytes of `uri` from `offset` (bytes; None reads to the end)."""
    path = local_path(uri)
    if path is not None:
        with _open_local(path) as file:
            file.seek(offset)
            return file.read(-1 if length is None else length)
    fs, name = _remote(uri)
    end = None if length is None else offset + length
    return cast(bytes, fs.cat_file(name, start=offset, end=end))


def sha256_file(uri: str) -> str:
    """Return the hex sha256 of the whole file, read in chunks."""
    with open_binary(uri) as file:
        return sha256_stream(file)


def sha256_stream(file: IO[bytes]) -> str:
    """Return the hex sha256 of what is left in `file`, read in chunks of 1 MiB."""
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def size(uri: str) -> int:
    """Return the size of the file in bytes."""
    path = local_path(uri)
    if path is not None:
        return path.stat().st_size
    fs, name = _remote(uri)
    return int(fs.size(name))


def exists(uri: str) -> bool:
    """Say whether a file or folder stands at `uri`."""
    path = local_path(uri)
    if path is not None:
        return path.exists()
    fs, name = _remote(uri)
    return bool(fs.exists(name))


def list_names(uri: str) -> list[str]:
    """Return the sorted names directly below the folder `uri`; an absent folder has none."""
    path = local_path(uri)
    if path is not None:
        return sorted(os.listdir(path)) if path.is_dir() else []
    fs, name = _remote(uri)
    fs.invalidate_cache(name)
    try:
        return sorted(str(found).rstrip("/").rsplit("/", 1)[-1] for found in fs.ls(name, False))
    except FileNotFoundError:
        return []


def write_atomic(uri: str, data: bytes) -> None:
    """Write `data` so that a reader sees the old file or the new one, never a part of it."""
    path = local_path(uri)
    if path is None:
        fs, name = _remote(uri)
        fs.pipe_file(name, data)
        return
    temporary = _write_temporary(path, data)
    os.replace(temporary, path)
    _sync_folder(path.parent)


def create_once(uri: str, data: bytes) -> None:
    """Write `data` only if nothing stands at `uri`; of many racing writers exactly one succeeds.

    Raises:
        FileExistsError: the name is taken; what stands there is whole.
    """
    path = local_path(uri)
    if path is None:
        fs, name = _remote(uri)
        fs.pipe_file(name, data, mode="create")
        return
    temporary = _write_temporary(path, data)
    try:
        os.link(temporary, path)  # atomic, and fails where the name is taken; rename would replace
    finally:
        temporary.unlink()
    _sync_folder(path.parent)


def publish(finished: Path, uri: str) -> None:
    """Give a finished local file its final name `uri`, without ever replacing what stands there.

    Raises:
        FileExistsError: the name is taken; what stands there is whole.
    """
    path = local_path(uri)
    if path is None:
        fs, name = _remote(uri)
        fs.put_file(str(finished), name, mode="create")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    os.link(finished, path)
    _sync_folder(path.parent)


def delete(uri: str) -> None:
    """Delete a file; one that is gone already is no error."""
    path = local_path(uri)
    if path is not None:
        path.unlink(missing_ok=True)
        return
    fs, name = _remote(uri)
    with contextlib.suppress(FileNotFoundError):
        fs.rm_file(name)


def sync_file(file: IO[bytes]) -> None:
    """Flush `file` to the disk, so that a later rename cannot outlive its content."""
    file.flush()
    os.fsync(file.fileno())


def _write_temporary(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            sync_file(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
