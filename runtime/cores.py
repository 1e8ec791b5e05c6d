"""How many processor cores this process may use."""

import os
from functools import cache
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@cache
def usable_cores(quota_file: Path = _QUOTA) -> int:
    """The cores that the process is bound to, or fewer if its container has a quota; at least 1.

    A runtime that starts a thread for each core of the machine loses more than it gains where a
    container may use two of sixty-four.

    Args:
        quota_file: holds the quota and its period, in microseconds; `max` is none.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = quota_file.read_text(encoding="ascii").split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such system, or an older one
        pass
    return max(1, cores)
