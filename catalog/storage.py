"""Files by URI, local or remote, with the two writes that the commit protocol rests on.

A URI is a plain local path, a percent-quoted ``file://`` URI (the only form that can name any file,
also one whose name is not UTF-8), or anything that fsspec knows (``s3://bucket/key``).
"""

import errno
import hashlib
import os
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote_from_bytes, unquote_to_bytes

import fsspec

from catalog.errors import StorageError, StorageUnavailable

_FILE = "file://"
_TEMPORARY = ".tmp"

# What the clients below fsspec raise as it is: no answer, or none that can be read.
_CLIENTS = ("aiobotocore", "aiohttp", "botocore", "urllib3")
_TRANSIENT = (errno.EBUSY, errno.EIO, getattr(errno, "EREMOTEIO", errno.EIO), errno.ETIMEDOUT)
_UNKNOWN_CALLER = (
    "ExpiredToken",
    "InvalidAccessKeyId",
    "RequestTimeTooSkewed",
    "TokenRefreshRequired",
)

# What S3 and its likes answer where a name is taken, or somebody else writes it at this moment.
_TAKEN = ("PreconditionFailed", "412")
_CONFLICT = ("ConditionalRequestConflict", "409")
_TRIES, _PAUSE = 6, 0.1  # seconds

_OBJECTS = frozenset(("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"))
"""Storages of objects, whose names may hold anything."""


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


@contextmanager
def remote(uri: str) -> Iterator[tuple[Any, str]]:
    """Yield fsspec's file system of a remote `uri`, and the name there.

    It has retried what can be retried, and keeps no listings: those of fsspec never end, and other
    processes write beside this one.

    Raises:
        StorageError: nothing can read such a URI.
        StorageUnavailable: the storage did not answer in the block.
    """
    try:
        fs, name = _open_storage(uri)
    except (ImportError, ValueError) as error:
        raise StorageError(
            f"cannot use {uri!r}: {error}. Expected a local path or a URI that fsspec knows; "
            "for s3:// install the extra: pip install 'controlnet-factory[s3]'"
        ) from error
    try:
        yield fs, name
    except Exception as error:
        if _is_unanswered(error):
            raise StorageUnavailable(f"{uri}: the storage does not answer: {error}") from error
        raise


def _open_storage(uri: str) -> tuple[Any, str]:
    """Return the file system of a URI and the name there.

    ``::`` in the name of an object is a part of it; fsspec would take it for a chain of systems.
    """
    protocol = uri.partition("://")[0]
    if "::" in protocol or "::" not in uri or protocol not in _OBJECTS:
        fs, name = fsspec.core.url_to_fs(uri, use_listings_cache=False)
        return fs, name
    kind = fsspec.get_filesystem_class(protocol)
    asked = kind._get_kwargs_from_urls(uri)
    return kind(use_listings_cache=False, **asked), kind._strip_protocol(uri)


def _is_unanswered(error: Exception) -> bool:
    """Say whether an error tells of the way to the storage, and nothing of the file."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if type(error).__module__.partition(".")[0] in _CLIENTS:
        return True
    if _code(error) in _UNKNOWN_CALLER:
        return True
    return isinstance(error, OSError) and error.errno in _TRANSIENT


def _code(error: BaseException) -> str | None:
    """Return S3's own word for an error."""
    response = getattr(error.__cause__, "response", None) or {}  # of botocore's ClientError
    code: str | None = response.get("Error", {}).get("Code")
    return code


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
    with remote(uri) as (fs, name), fs.open(name, "rb") as file:
        yield file


def open_ranges(uri: str) -> IO[bytes]:
    """Open a remote file of which a reader wants a few far-apart ranges: nothing is read ahead."""
    with remote(uri) as (fs, name):
        return cast("IO[bytes]", fs.open(name, "rb", cache_type="none"))


def read_bytes(uri: str, offset: int = 0, length: int | None = None) -> bytes:
    """Read `length` bytes of `uri` from `offset` (bytes; None reads to the end)."""
    path = local_path(uri)
    if path is not None:
        with _open_local(path) as file:
            file.seek(offset)
            return file.read(-1 if length is None else length)
    end = None if length is None else offset + length
    with remote(uri) as (fs, name):
        try:
            return cast(bytes, fs.cat_file(name, start=offset, end=end))
        except Exception:
            there = fs.size(name)
            if there is None or there > offset:
                raise
            return b""  # a range behind the end, which S3 refuses


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
    with remote(uri) as (fs, name):
        return int(fs.size(name))


def modified(uri: str) -> float:
    """Return when the file was written, by the clock of its storage; seconds since 1970."""
    path = local_path(uri)
    if path is not None:
        return path.stat().st_mtime
    with remote(uri) as (fs, name):
        return _when(fs.info(name))


def exists(uri: str) -> bool:
    """Say whether a file or folder stands at `uri`."""
    path = local_path(uri)
    if path is not None:
        return path.exists()
    with remote(uri) as (fs, name):
        return bool(fs.exists(name))


def list_names(uri: str) -> list[str]:
    """Return the sorted names directly below the folder `uri`; an absent folder has none."""
    path = local_path(uri)
    if path is not None:
        return sorted(os.listdir(path)) if path.is_dir() else []
    with remote(uri) as (fs, name):
        fs.invalidate_cache(name)
        try:
            found = fs.ls(name, False)
        except FileNotFoundError:
            return []
    return sorted(str(one).rstrip("/").rsplit("/", 1)[-1] for one in found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file below a folder.

    Attributes:
        name: its path from the folder, with ``/``.
        bytes: its size.
        modified: when it was written; seconds since 1970.
    """

    name: str
    bytes: int
    modified: float


def walk(uri: str) -> list[Entry]:
    """Return all files below the folder `uri`, sorted by name; an absent folder has none."""
    path = local_path(uri)
    found = _walk_remote(uri) if path is None else _walk_local(path)
    return sorted(found, key=lambda entry: entry.name)


def _walk_local(root: Path) -> Iterator[Entry]:
    for folder, _, names in os.walk(root, onerror=_raise_unless_missing):
        for name in names:
            path = Path(folder, name)
            with suppress(FileNotFoundError):  # a temporary file that just got its final name
                found = path.lstat()
                below = path.relative_to(root).as_posix()
                yield Entry(name=below, bytes=found.st_size, modified=found.st_mtime)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _walk_remote(uri: str) -> Iterator[Entry]:
    with remote(uri) as (fs, root):
        fs.invalidate_cache()
        found = fs.find(root, detail=True)
    for path, entry in found.items():
        name = str(path).removeprefix(root.rstrip("/")).lstrip("/")
        yield Entry(name=name, bytes=int(entry["size"]), modified=_when(entry))


def _when(entry: dict[str, Any]) -> float:
    """Return when a remote file was written, of what fsspec tells of it."""
    # Every store has its own word for it; in-memory files tell of their creation only.
    when = entry.get("LastModified") or entry.get("mtime") or entry["created"]
    return when.timestamp() if isinstance(when, datetime) else float(when)


def write_atomic(uri: str, data: bytes) -> None:
    """Write `data` so that a reader sees the old file or the new one, never a part of it."""
    path = local_path(uri)
    if path is None:
        with remote(uri) as (fs, name):
            fs.pipe_file(name, data)
        return
    temporary = _write_temporary(path, data)
    os.replace(temporary, path)
    sync_folder(path.parent)


@contextmanager
def replacing(uri: str) -> Iterator[Path]:
    """Yield a local path to write to; what is there at the end replaces `uri`, whole."""
    path = local_path(uri)
    with temporary(uri) as made:
        yield made
        if path is None:
            with remote(uri) as (fs, name):
                fs.put_file(str(made), name)
        else:
            os.replace(made, path)
            sync_folder(path.parent)


@contextmanager
def temporary(uri: str) -> Iterator[Path]:
    """Yield a local path for what will stand at `uri`, beside it where that is local."""
    path = local_path(uri)
    made = _temporary(path or Path(tempfile.gettempdir()) / uri.rpartition("/")[2])
    try:
        yield made
    finally:
        made.unlink(missing_ok=True)


def create_once(uri: str, data: bytes) -> None:
    """Write `data` only if nothing stands at `uri`; of many racing writers exactly one succeeds.

    Raises:
        FileExistsError: the name is taken; what stands there is whole.
    """
    path = local_path(uri)
    if path is None:
        _create_remote(uri, lambda fs, name: fs.pipe_file(name, data, mode="create"))
        return
    temporary = _write_temporary(path, data)
    try:
        os.link(temporary, path)  # atomic, and fails where the name is taken; rename would replace
    finally:
        temporary.unlink()
    sync_folder(path.parent)


def publish(finished: Path, uri: str) -> None:
    """Give a finished local file its final name `uri`, without ever replacing what stands there.

    Raises:
        FileExistsError: the name is taken; what stands there is whole.
    """
    path = local_path(uri)
    if path is None:
        _create_remote(uri, lambda fs, name: fs.put_file(str(finished), name, mode="create"))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    os.link(finished, path)
    sync_folder(path.parent)


def _create_remote(uri: str, write: Callable[[Any, str], None]) -> None:
    """Let `write` create a remote file; a storage where two write at once may ask to try again."""
    for tries_left in reversed(range(_TRIES)):
        with remote(uri) as (fs, name):
            try:
                write(fs, name)
                return
            except FileExistsError:
                raise
            except OSError as error:
                if _code(error) in _TAKEN:
                    raise FileExistsError(f"{uri} is taken") from error
                if _code(error) not in _CONFLICT or not tries_left:
                    raise
        time.sleep(_PAUSE)


def touch(uri: str) -> None:
    """Let a local file be new; remote storages keep the time of the writing."""
    path = local_path(uri)
    if path is not None:
        os.utime(path)


def remove(uri: str) -> None:
    """Remove the file at `uri`, if one stands there."""
    path = local_path(uri)
    if path is not None:
        path.unlink(missing_ok=True)
        return
    with remote(uri) as (fs, name), suppress(FileNotFoundError):
        fs.rm_file(name)


def is_temporary(name: str) -> bool:
    """Say whether a file's name is that of one being written, or left by a writer that died."""
    return name.startswith(".") and name.endswith(_TEMPORARY)


def sync_file(file: IO[bytes]) -> None:
    """Flush `file` to the disk, so that a later rename cannot outlive its content."""
    file.flush()
    os.fsync(file.fileno())


def _write_temporary(path: Path, data: bytes) -> Path:
    temporary = _temporary(path)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            sync_file(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _temporary(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent / f".{path.name}.{uuid.uuid4().hex}{_TEMPORARY}"


def sync_folder(folder: Path) -> None:
    """Let the names in `folder` outlive a crash of the machine: of new files, after a rename."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
