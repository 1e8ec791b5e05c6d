"""Turns and percentiles."""

import pytest

from icnet_deploy.errors import BackendError
from icnet_deploy.timing import (
    interleave,
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
