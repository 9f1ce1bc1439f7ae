"""How many CPUs this process may use, which in a container are fewer than the machine has."""

import math
import os
from functools import cache
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


@cache
def usable_cpus(cgroups: Path = _CGROUPS) -> int:
    """Return the CPUs that this process may use, one at least.

    Those of its affinity (taskset, Slurm, `docker --cpuset-cpus`), and no more than its container's
    quota of time (`docker --cpus`, a pod's limit), rounded up. Where neither can be read, those of
    the machine. They are looked up once: a loader asks for each of its batches.

    Args:
        cgroups: where the kernel shows the container's control group, of version 2 or 1.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota(cgroups))))


def _quota(cgroups: Path) -> float:
    """Return the CPUs whose time the container may take; infinite, where there is no limit."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            words = " ".join((cgroups / name).read_text() for name in files).split()
            quota, period = int(words[0]), int(words[1])
        except (OSError, ValueError, IndexError):  # not this version, or "max": no limit
            continue
        if quota > 0 and period > 0:
            return quota / period
    return math.inf
