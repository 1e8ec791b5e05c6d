"""Intervals of differences: what no resample can show widens nothing."""

from __future__ import annotations

import numpy as np
import pytest

from icnet_deploy.evaluation.budgets import BUDGETS
from icnet_deploy.evaluation.confidence.counts import ImageCounts
from icnet_deploy.evaluation.confidence.differences import differences, share
from icnet_deploy.evaluation.verdicts import Verdict


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


def one(name, right, truth, group=None):
    """The counts of one image of two classes."""
    parts = (np.array(part) for part in (right, truth, right))
    return ImageCounts(name, group or name, *parts, 0, 0.0)


def pair(name, truth, lost=10, group=None):
    """One image of two models, the first of which has lost some pixels of each class."""
    right = [9 * pixels // 10 for pixels in truth]
    less = [max(0, pixels - lost) for pixels in right]
    return one(name, less, truth, group), one(name, right, truth, group)


UNLABELLED, LABELLED = (0, 0), (10_000, 10_000)


@pytest.mark.parametrize(
    "truths",
    [
        [*[UNLABELLED] * 4, LABELLED],
        [*[UNLABELLED] * 11, LABELLED],  # groups are drawn
        [(10_000, 0), (0, 10_000)],  # each class on an image of its own
        [LABELLED] * 2,  # one image under two names
        [LABELLED] * 12,
    ],
)
def test_one_image_that_tells_decides_nothing_however_many_there_are(truths):
    pairs = [pair(f"i{place}", truth) for place, truth in enumerate(truths)]
    found = differences(*zip(*pairs, strict=True), ("road", "sky"))
    assert not found.miou.low > -100
    assert found.miou.effective_images == 1
    assert BUDGETS["int8"].judge(found).findings[0].verdict is Verdict.UNDECIDED


def test_images_without_labels_make_no_groups():
    pairs = [pair(f"i{n}", UNLABELLED if n % 2 else (10_000 + n, 10_000)) for n in range(18)]
    found = differences(*zip(*pairs, strict=True), ("road", "sky"))
    assert (found.images, found.groups, found.miou.groups, found.drawn) == (9, 9, 9, "images")
    assert found.miou.effective_images <= 9


def test_a_group_that_has_most_images_tells_no_more_than_one():
    random, pairs = np.random.default_rng(0), []
    for group, images in enumerate([200, *[5] * 11]):
        lost = 100 + 50 * (group % 4) if group else 400  # as its group does
        for image in range(images):
            off = lost + int(random.integers(0, 400))
            pairs.append(pair(f"{group}-{image}", LABELLED, off, f"g{group:02}"))
    found = differences(*zip(*pairs, strict=True), ("road", "sky"))
    assert found.miou.effective_images < 3


def test_all_pixels_of_images_of_one_size_are_alike_beyond_doubt():
    known = share([(100, 100)] * 3, ["a", "b", "c"])
    assert (known.low, known.value, known.high) == (100, 100, 100)


def test_a_share_that_grew_alike_on_every_image_grew_beyond_doubt():
    groups = [f"g{number}" for number in range(12)]
    counts = [(90 - number, 100) for number in range(12)]  # which differ by far more than that
    grown = share(counts, groups, before=[few - 2 for few, _ in counts])
    assert (grown.low, grown.value, grown.high) == pytest.approx((2, 2, 2))
    fallen = share(
        counts, groups, before=[few + (number % 3) for number, (few, _) in enumerate(counts)]
    )
    assert fallen.low < fallen.value == pytest.approx(-1)
    assert -1.6 < fallen.low < fallen.high < -0.4
