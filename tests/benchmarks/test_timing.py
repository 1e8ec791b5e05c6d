"""Turns, percentiles, and the growth of memory."""

import numpy as np
import pytest

from icnet_deploy.benchmarks.memory import available, growth, peak
from icnet_deploy.benchmarks.timing import interleave, summary
from icnet_deploy.errors import BackendError


def test_turns_are_taken_round_by_round():
    order = []

    def turn(name):
        def run():
            order.append(name)
            return float(len(order))

        return run

    samples, failures = interleave({name: turn(name) for name in "ABC"}, 2)
    assert order == list("ABCABC")
    assert samples == {"A": [1.0, 4.0], "B": [2.0, 5.0], "C": [3.0, 6.0]}
    assert failures == {}


def test_one_that_fails_has_no_later_turn_and_the_others_go_on():
    calls, told = [], []

    def fails():
        calls.append(1)
        raise BackendError("out of memory")

    samples, failures = interleave({"A": fails, "B": lambda: 1.0}, 3, told.append)
    assert failures == {"A": "out of memory"}
    assert len(calls) == 1
    assert samples["B"] == [1.0, 1.0, 1.0]
    assert told == list("ABABAB")  # a bar that counts turns comes to its end


def test_percentiles_are_of_the_raw_samples():
    told = summary([0.001 * n for n in range(11)])
    assert (told["median_ms"], told["p10_ms"], told["p90_ms"]) == (5.0, 1.0, 9.0)
    assert told["samples_ms"] == [float(n) for n in range(11)]
    assert told["runs"] == 11


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
