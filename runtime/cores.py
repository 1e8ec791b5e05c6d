"""How many processor cores this process may use."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path


@cache
def usable_cores(system: Path = Path("/")) -> int:
    """The cores that the process is bound to, or fewer if its container has a quota; at least 1.

    A runtime that starts a thread for each core of the machine loses more than it gains where a
    container may use two of sixty-four. A quota holds for all groups below the one that has it.

    Args:
        system: where `proc` and `sys` are.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([cores, *(round(quota) for quota in _quotas(system))]))


def _quotas(system: Path) -> Iterator[float]:
    """The cores of each quota on the process: of its control group, and of those above."""
    root = system / "sys/fs/cgroup"
    for controllers, group in _groups(system):
        # Of version 2 there is one tree of groups, of version 1 one for each controller.
        tree = root / controllers if controllers else root
        for folder in (tree / group, *(tree / above for above in group.parents)):
            quota = _quota_of_2(folder) if not controllers else _quota_of_1(folder)
            if quota is not None:
                yield quota


def _groups(system: Path) -> Iterator[tuple[str, Path]]:
    """(its controllers, the group) of each tree that may hold a quota; the trees' roots are last.

    In a container the names may be the machine's, of which nothing is there.
    """
    try:
        lines = (system / "proc/self/cgroup").read_text("utf-8", "replace").splitlines()
    except OSError:  # no such system
        lines = []
    for line in lines:
        _, controllers, group = (*line.split(":", 2), "", "")[:3]
        if not controllers or "cpu" in controllers.split(","):
            yield controllers, Path(group.lstrip("/"))
    yield from (("", Path()), ("cpu", Path()), ("cpu,cpuacct", Path()))


def _quota_of_2(folder: Path) -> float | None:
    """Of `cpu.max`: the quota and its period, in microseconds; `max` is none."""
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_of_1(folder: Path) -> float | None:
    """Of two files, in microseconds; -1 is none."""
    try:
        quota, period = (
            int((folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii"))
            for name in ("quota", "period")
        )
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
