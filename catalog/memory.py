"""Memory that a process keeps for its next picture."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_KEPT = 256 * 2**20  # bytes an arena
_LARGEST = 32 * 2**20  # bytes; glibc takes no more


def keep_freed_memory() -> None:
    """Have freed memory stay with this process; does nothing without glibc.

    By default glibc hands what one picture's arrays took back to the system as they are freed, and
    the next one's first touch of each page is a fault, which takes longer than most that is done
    to it. What stays is 256 MiB a thread at the most.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT)
