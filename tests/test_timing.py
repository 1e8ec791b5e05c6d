"""Turns, percentiles, and the growth of memory."""

import numpy as np
import pytest

from icnet_deploy.benchmarks.processes.resident import available, growth, peak
from icnet_deploy.errors import BackendError
from icnet_deploy.timing import (
    ENOUGH,
    interleave,
    ratio_of_medians,
    summary,
    tellable,
)


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


def test_no_percentile_is_told_that_no_sample_lies_beyond():
    assert "p99_ms" not in summary([1.0] * 99)
    assert summary([0.001] * 99 + [1.0])["p99_ms"] == pytest.approx(1.0 + 0.01 * 999, abs=0.01)
    assert [tellable(q, 9) for q in (10, 90, 99)] == [False] * 3
    assert [tellable(q, 10) for q in (10, 90, 99)] == [True, True, False]


def test_the_interval_of_a_ratio_holds_the_truth_as_often_as_it_says():
    dice, held, tries = np.random.default_rng(3), 0, 120
    for _ in range(tries):
        a, b = dice.lognormal(0, 0.1, 25), dice.lognormal(0, 0.1, 25)
        held += not ratio_of_medians(1.3 * a, 1.3 * b).differs
    assert 0.90 <= held / tries <= 1


def test_a_drift_that_both_met_does_not_hide_a_difference():
    drift = np.linspace(1, 3, 30)
    noise = np.random.default_rng(0).normal(1, 0.005, (2, 30))
    slow, fast = 1.05 * drift * noise[0], drift * noise[1]
    in_turn = ratio_of_medians(slow, fast, in_turn=True)
    assert in_turn.value == pytest.approx(1.05, abs=0.02)
    assert in_turn.differs
    assert ratio_of_medians(slow, fast).differs is False


def test_few_samples_tell_nothing():
    few = [1.0] * (ENOUGH - 1)
    assert ratio_of_medians([2.0] * 50, few).value == 2
    assert ratio_of_medians([2.0] * 50, few).differs is None
    assert ratio_of_medians([1.0], [0.0]) is None
    assert ratio_of_medians([], [1.0]) is None


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
