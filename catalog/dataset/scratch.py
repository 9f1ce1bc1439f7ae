"""A process's own folder for what it makes before it is uploaded; the dead ones' are swept.

Each process locks a file beside its folder. The lock goes with the process, however it ends, so
whoever comes next on the machine can tell what is nobody's any more.
"""

import fcntl
import os
import shutil
import tempfile
import uuid
from functools import cache
from pathlib import Path


@cache
def own_folder() -> Path:
    """Return this process's folder below the machine's temporary one; sweep those of dead ones."""
    base = Path(tempfile.gettempdir()) / f"controlnet-factory-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    if base.stat().st_uid != os.getuid():  # somebody else took the name
        return Path(tempfile.mkdtemp(prefix="controlnet-factory-"))
    _sweep(base)
    while True:
        folder = base / uuid.uuid4().hex
        lock = os.open(_lock_of(folder), os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)  # held, and the file open, as long as the process lives
        if _lock_of(folder).exists():  # nobody swept it before it was locked
            folder.mkdir()
            return folder
        os.close(lock)


def _lock_of(folder: Path) -> Path:
    return folder.with_suffix(".lock")


def _sweep(base: Path) -> None:
    for path in base.glob("*.lock"):
        try:
            lock = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink(missing_ok=True)
        except BlockingIOError:
            pass  # its process lives
        finally:
            os.close(lock)
