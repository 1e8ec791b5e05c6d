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
    path = tmp_path / "cpu.max"
    if quota is not None:
        path.write_text(quota)
    assert usable_cores(path) == cores


def test_there_is_one_count_of_cores():
    assert cpu()["cores"] == machine()["cores"] == usable_cores()
