"""The ratio of two medians, and how sure it is."""

import numpy as np
import pytest

from icnet_deploy.benchmarks.measurement import ENOUGH, ratio_of_medians


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
