"""The CPU, as far as libraries choose their kernels by it: other kernels sum in another order."""

import platform
from functools import cache
from pathlib import Path

import cv2

from catalog.dataset.commits import UNKNOWN

_CPUINFO = Path("/proc/cpuinfo")
_NAMES = (  # of x86, then of ARM
    "vendor_id",
    "cpu family",
    "model",
    "model name",
    "CPU implementer",
    "CPU part",
    "CPU variant",
)


@cache
def model() -> str:
    """Name the model: vendors and families have kernels of their own at one instruction set."""
    try:
        first = _CPUINFO.read_text().partition("\n\n")[0]
    except OSError:  # no Linux
        return platform.processor() or UNKNOWN
    told = dict(line.split(":", 1) for line in first.splitlines() if ":" in line)
    known = {name.strip(): " ".join(value.split()) for name, value in told.items()}
    return ", ".join(known[name] for name in _NAMES if name in known) or UNKNOWN


@cache
def instructions() -> str:
    """Name the instruction sets that OpenCV may use, as it found them: a hypervisor hides some."""
    named = [name.lstrip("*") for name in cv2.getCPUFeaturesLine().split()]
    return " ".join(name for name in named if not name.endswith("?")) or UNKNOWN
