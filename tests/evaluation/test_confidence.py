"""Intervals of differences: what no resample can show widens nothing."""

from __future__ import annotations

import numpy as np

from icnet_deploy.evaluation.confidence.counts import ImageCounts
from icnet_deploy.evaluation.confidence.differences import differences


def counts(right):
    """Of 12 images, each a group of its own: pixels that are right, 12 x 2, of 100,000 a class."""
    truth = np.full(2, 100_000)
    return [
        ImageCounts(f"i{n}", f"g{n}", np.array(one), truth, np.array(one), 0, 0.0)
        for n, one in enumerate(right)
    ]


def test_a_class_in_which_both_answer_alike_widens_no_other():
    theirs = [(90_000, 80_000 + 100 * n) for n in range(12)]
    ours = [(road - 200 + 30 * (n % 5), sky) for n, (road, sky) in enumerate(theirs)]
    found = differences(counts(ours), counts(theirs), ("road", "sky"))
    road, sky = found.classes["road"], found.classes["sky"]
    assert (sky.value, sky.low, sky.high) == (0, 0, 0)
    assert -1 < road.low < road.value < road.high < 0
