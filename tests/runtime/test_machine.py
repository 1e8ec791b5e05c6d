"""What the machine has, by one count of cores that honours a container's quota."""

import os

import pytest

from icnet_deploy.runtime.cores import usable_cores
from icnet_deploy.runtime.machine import cpu, machine

BOUND = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", BOUND),
        ("100000 100000", 1),
        ("190000 100000", min(2, BOUND)),
        ("10000 100000", 1),
        ("6400000 100000", BOUND if BOUND < 64 else 64),
        ("of another kernel", BOUND),
        (None, BOUND),
    ],
)
def test_a_containers_quota_is_honoured(tmp_path, quota, cores):
    if quota is not None:
        write(tmp_path, "sys/fs/cgroup/cpu.max", quota)
    assert usable_cores(tmp_path) == cores


def write(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.mark.parametrize("where", ["", "jobs", "jobs/mine"])
def test_a_quota_of_a_group_or_of_one_above_it_is_honoured(tmp_path, where):
    write(tmp_path, "proc/self/cgroup", "0::/jobs/mine\n")
    write(tmp_path, f"sys/fs/cgroup/{where}/cpu.max", "100000 100000\n")
    write(tmp_path, "sys/fs/cgroup/jobs/other/cpu.max", "10000 100000\n")
    assert usable_cores(tmp_path) == 1


@pytest.mark.parametrize("tree", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize("where", ["", "docker", "docker/a1"])
def test_a_quota_of_version_1_is_honoured(tmp_path, tree, where):
    write(tmp_path, "proc/self/cgroup", f"5:memory:/docker/a1\n4:{tree}:/docker/a1\n0::/\n")
    folder = f"sys/fs/cgroup/{tree}/{where}"
    write(tmp_path, f"{folder}/cpu.cfs_quota_us", "100000\n")
    write(tmp_path, f"{folder}/cpu.cfs_period_us", "100000\n")
    assert usable_cores(tmp_path) == 1


def test_no_quota_of_version_1_is_none(tmp_path):
    write(tmp_path, "proc/self/cgroup", "4:cpu,cpuacct:/docker/a1\n")
    write(tmp_path, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    write(tmp_path, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    assert usable_cores(tmp_path) == BOUND


@pytest.mark.parametrize("line", ["", "nonsense", "4:cpu", "4:cpu:/machine.slice/gone\n::::"])
def test_groups_that_are_not_there_are_passed_over(tmp_path, line):
    """As in a container, which is told the machine's names and has the quota at its root."""
    write(tmp_path, "proc/self/cgroup", line)
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    assert usable_cores(tmp_path) == 1


def test_there_is_one_count_of_cores():
    assert cpu()["cores"] == machine()["cores"] == usable_cores()
