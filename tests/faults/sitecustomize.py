"""Faults for the processes that a test starts: put this folder on PYTHONPATH and say which.

CONTROLNET_FACTORY_TEST_FAULT names a file, which says the kind: ``die`` (of a null pointer),
``hog`` (memory, until killed), ``sick`` (an error of the disk), ``hang``, ``clutch`` (hang, and let
no other thread run) or ``linger`` (0.1 s). Where it has a second line, a number, it strikes only so
often in all. It strikes where the bytes of an image that holds MARK are hashed in one go, which is
when a unit reads it. While there is no such file, nothing happens.
"""

import ctypes
import errno
import hashlib
import os
import time

MARK = b"a planted fault"

_real = hashlib.sha256


def _strike() -> None:
    path = os.environ["CONTROLNET_FACTORY_TEST_FAULT"]
    try:
        with open(path) as file:
            kind, *times = file.read().split()
    except FileNotFoundError:
        return
    if kind == "linger":
        time.sleep(0.1)
    elif not times or _is_turn(path, int(times[0])):
        if kind == "sick":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if kind == "die":
            ctypes.string_at(0)  # as a broken decoder would; a signal sent could be handled
        if kind == "hang":
            time.sleep(3600)
        if kind == "clutch":
            ctypes.PyDLL(None).sleep(3600)
        held = []
        until = time.monotonic() + 60
        while kind == "hog" and time.monotonic() < until:
            held.append(bytearray(os.urandom(1 << 20)) * 64)
            time.sleep(0.05)
        if kind == "hog":
            open(f"{path}.survived", "x").close()


def _is_turn(path: str, times: int) -> bool:
    for turn in range(times):
        try:
            os.close(os.open(f"{path}.{turn}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        return True
    return False


def _sha256(data: bytes = b"", **options: bool) -> object:
    if isinstance(data, bytes) and MARK in data:
        _strike()
    return _real(data, **options)


if "CONTROLNET_FACTORY_TEST_FAULT" in os.environ:
    hashlib.sha256 = _sha256
