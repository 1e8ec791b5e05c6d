"""The growth of memory, on a CPU and on a GPU."""

import numpy as np
import pytest

from icnet_deploy.benchmarks.processes.resident import available, growth, peak

MEGABYTE = 1 << 20


def test_what_is_freed_during_the_work_counts():
    if peak() is None:
        pytest.skip("no /proc here")

    def work():
        np.ones(64 * MEGABYTE, np.uint8)
        np.ones(16 * MEGABYTE, np.uint8)

    np.ones(160 * MEGABYTE, np.uint8)  # an earlier peak, which must not hide this one
    assert 60 * MEGABYTE < growth("cpu", work) < 80 * MEGABYTE


def test_what_was_held_before_does_not_count():
    if peak() is None:
        pytest.skip("no /proc here")
    held = np.ones(64 * MEGABYTE, np.uint8)
    assert growth("cpu", lambda: held.sum()) < 8 * MEGABYTE
    assert peak() > 64 * MEGABYTE
    assert available("cpu") > MEGABYTE


def test_a_gpu_is_asked_through_nvidia_smi(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\ncat "$(dirname "$0")/used"\n')
    tool.chmod(0o755)
    (tmp_path / "used").write_text("1000\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert growth("cuda", lambda: (tmp_path / "used").write_text("1300\n")) == 300 * MEGABYTE
    tool.unlink()
    assert growth("cuda", lambda: None) is None
