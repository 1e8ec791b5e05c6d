"""Differences at their edges, and against a bootstrap that is written out."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from icnet_deploy.evaluation.budgets import BUDGETS
from icnet_deploy.evaluation.confidence.counts import ImageCounts
from icnet_deploy.evaluation.confidence.differences import FEWEST_GROUPS, differences, own_scores
from icnet_deploy.evaluation.verdicts import Verdict

NAMES = ("road", "car", "pole")


def image(place, group, truth, right, predicted=None):
    """The counts of one image; what is wrong is given to the next class unless said."""
    truth, right = np.asarray(truth), np.asarray(right)
    if predicted is None:
        predicted = right + np.roll(truth - right, 1)
    return ImageCounts(str(place), group, right, truth, predicted, 3, 1.5)


def scored(count, group=str, classes=3, seed=0, shift=0.0):
    """Two models on so many images, alike but for chance, and what the first loses besides."""
    random = np.random.default_rng(seed)
    ours, theirs = [], []
    for place in range(count):
        truth = random.integers(20_000, 40_000, classes)
        accuracy = 0.8 + 0.1 * random.random(classes)
        lost = shift + 0.01 * random.standard_normal(classes)
        for models, share in ((theirs, accuracy), (ours, accuracy - lost)):
            models.append(image(place, group(place), truth, np.rint(truth * share).astype(int)))
    return ours, theirs


def one_drive(place):
    return "drive"


def sweep(interval):
    return interval.high - interval.low


def written_out(ours, theirs, draws=4000):
    """Half the width of the interval of mIoU, by a loop over draws of images, one after another."""
    random = np.random.default_rng(1)
    count = len(ours)
    right, union = (
        np.array([[one.right for one in model] for model in (ours, theirs)], float),
        np.array(
            [[one.truth + one.predicted - one.right for one in model] for model in (ours, theirs)],
            float,
        ),
    )

    def miou(chosen):
        each = right[:, chosen].sum(axis=1) / union[:, chosen].sum(axis=1)
        return 100 * (each[0] - each[1]).mean()

    iou = right.sum(axis=1) / union.sum(axis=1)
    parts = (right - iou[:, None] * union) / union.sum(axis=1)[:, None]
    terms = 100 * (parts[0] - parts[1]).mean(axis=1)  # of each image
    measured = miou(np.arange(count))
    error = np.sqrt(count * terms.var(ddof=1))
    far = []
    for _ in range(draws):
        chosen = random.integers(0, count, count)
        own = np.sqrt(count * terms[chosen].var(ddof=1))
        far.append(abs(miou(chosen) - measured) / max(own, 0.3 * error))
    return error * np.quantile(far, 0.95)


@pytest.mark.parametrize("count", [12, 60])
def test_an_interval_is_that_of_a_bootstrap_that_is_written_out(count):
    ours, theirs = scored(count, shift=0.02)
    miou = differences(ours, theirs, NAMES).miou
    assert miou.high - miou.value == pytest.approx(miou.value - miou.low)
    assert sweep(miou) / 2 == pytest.approx(written_out(ours, theirs), rel=0.06)


def test_the_difference_is_that_of_the_scores():
    ours, theirs = scored(15)
    found = differences(ours, theirs, NAMES)
    iou = [
        sum(one.right for one in m) / sum(one.truth + one.predicted - one.right for one in m)
        for m in (ours, theirs)
    ]
    each = 100 * (iou[0] - iou[1])
    assert [found.classes[name].value for name in NAMES] == pytest.approx(list(each))
    assert found.miou.value == pytest.approx(each.mean())
    backwards = differences(theirs, ours, NAMES)
    assert backwards.miou.value == pytest.approx(-found.miou.value)
    assert sweep(backwards.miou) == pytest.approx(sweep(found.miou))
    assert found == differences(ours, theirs, NAMES)  # the same seed, the same intervals


def test_one_models_scores_are_its_difference_from_one_that_finds_nothing():
    model, _ = scored(15)
    iou = 100 * (
        sum(one.right for one in model)
        / sum(one.truth + one.predicted - one.right for one in model)
    )
    found = own_scores(model, NAMES)
    assert [found.classes[name].value for name in NAMES] == pytest.approx(list(iou))
    assert found.miou.value == pytest.approx(iou.mean())
    assert found.small_regions.value == pytest.approx(50.0)  # 1.5 of 3 in each image
    assert 0 < found.miou.low < found.miou.value < found.miou.high < 100


def test_the_order_of_groups_changes_nothing():
    ours, theirs = scored(30, lambda place: f"g{place // 2}")
    order = [place for start in (0, 1) for place in range(start, 30, 2)]
    mixed = differences([ours[i] for i in order], [theirs[i] for i in order], NAMES)
    plain = differences(ours, theirs, NAMES)
    assert mixed.groups == plain.groups == 15
    assert sweep(mixed.miou) == pytest.approx(sweep(plain.miou))


def test_one_image_decides_nothing():
    ours, theirs = scored(1)
    for pair in ((ours, theirs), (ours, ours)):
        found = differences(*pair, NAMES, alike=[(10, 10)])
        for budget in BUDGETS.values():
            judgement = budget.judge(found)
            assert {finding.verdict for finding in judgement.findings} == {Verdict.UNDECIDED}
        [miou] = [finding for finding in judgement.findings if finding.what == "mIoU"]
        assert miou.why == "too few images to tell anything"
        assert miou.more_images is None
        assert "too few to tell anything about other images" in found.basis()


@pytest.mark.parametrize("count", [2, 3, 5])
def test_few_images_are_sure_of_little(count):
    ours, theirs = scored(count)
    few = differences(ours, theirs, NAMES)
    assert sweep(few.miou) > 2 * sweep(differences(*scored(40), NAMES).miou)
    assert all(not seen.enough() for seen in few.seen.values())
    assert np.isfinite([few.miou.low, few.miou.high]).all()


@pytest.mark.parametrize("group", [str, one_drive])
def test_two_models_that_are_one_differ_by_nothing(group):
    ours, _ = scored(20, group)
    found = differences(ours, ours, NAMES, alike=[(10, 10)] * 20)
    for interval in (found.miou, *found.classes.values(), found.pixel_accuracy):
        assert (interval.value, interval.low, interval.high) == (0, 0, 0)
    assert (found.alike.low, found.alike.high) == (1, 1)
    assert all(budget.judge(found).verdict is Verdict.WITHIN for budget in BUDGETS.values())


def test_a_class_in_no_truth_is_not_there():
    ours, theirs = scored(20)
    without = np.array([1, 1, 0])
    ours, theirs = (
        [replace(one, truth=one.truth * without, right=one.right * without) for one in model]
        for model in (ours, theirs)
    )
    found = differences(ours, theirs, NAMES)  # both predict it
    assert set(found.classes) == set(found.seen) == {"road", "car"}
    values = [interval.value for interval in found.classes.values()]
    assert found.miou.value == pytest.approx(np.mean(values))
    assert found.left_out == ()


def test_regions_that_are_not_there_have_no_interval():
    ours, theirs = scored(12)
    none = [[replace(one, small_regions=0, small_right=0.0) for one in m] for m in (ours, theirs)]
    assert differences(*none, NAMES).small_regions is None
    assert differences(ours, theirs, NAMES).alike is None


def test_a_class_in_one_passage_of_a_drive_widens_no_other():
    random = np.random.default_rng(3)
    drift = np.zeros(3)
    ours, theirs = [], []
    for place in range(101):
        drift = 0.9 * drift + 0.4 * random.standard_normal(3)
        truth = np.array([30_000, 20_000, 3_000 if 50 <= place < 57 else 0])
        for model, share in ((theirs, np.full(3, 0.8)), (ours, 0.8 + 0.005 * drift)):
            right = np.rint(truth * share).astype(int)
            wrong = truth - right
            given = right + np.array([wrong[1] + wrong[2], wrong[0], 0])  # no pole elsewhere
            model.append(image(place, "drive", truth, right, given))
    found = differences(ours, theirs, NAMES)
    assert found.seen["pole"].enough()
    assert (found.classes["pole"].low, found.classes["pole"].high) == (-100, 100)
    assert all(sweep(found.classes[name]) < 6 for name in ("road", "car"))
    [pole] = [one for one in BUDGETS["int8"].judge(found).findings if one.what == "pole"]
    assert (pole.verdict, pole.more_images) == (Verdict.UNDECIDED, None)


@pytest.mark.parametrize(
    ("group", "groups"),
    [(str, 60), (one_drive, 1), (lambda n: f"g{n // 6}", 10), (lambda n: f"g{n // 7}", 9)],
)
def test_groups_are_drawn_from_ten_on_and_blocks_below(group, groups):
    found = differences(*scored(60, group), NAMES)
    assert found.groups == groups
    assert (found.drawn == "groups") == (groups >= FEWEST_GROUPS)
    assert ("anything about other groups" in found.basis()) == (groups < FEWEST_GROUPS)


def test_what_is_not_of_the_same_images_is_refused():
    ours, theirs = scored(12)
    for pair in ((ours, theirs[:-1]), (ours, theirs[::-1]), ([], [])):
        with pytest.raises(ValueError, match="the same images, at least one"):
            differences(*pair, NAMES)
    blank = [image(0, "a", np.zeros(3, int), np.zeros(3, int))]
    with pytest.raises(ValueError, match="no pixel of the truth is labelled"):
        differences(blank, blank, NAMES)


def test_500_images_of_19_classes_take_well_under_a_second():
    ours, theirs = scored(500, classes=19)
    alike = [(990, 1000)] * len(ours)
    names = [f"class {n}" for n in range(19)]
    start = time.process_time()
    differences(ours, theirs, names, alike=alike)
    assert time.process_time() - start < 2  # of all threads, on any machine; 0.4 s measured
