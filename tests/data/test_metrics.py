"""Scores, against numbers worked by hand and a naive double loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from icnet_deploy.data import ConfusionMatrix, RegionAccuracy
from icnet_deploy.errors import DatasetError


def grid(text):
    """A label map from lines of digits; `.` is 255."""
    rows = [[255 if c == "." else int(c) for c in line.strip()] for line in text.split()]
    return np.array(rows, np.uint8)


def matrix(prediction, target, classes=3):
    scores = ConfusionMatrix(classes)
    scores.add(grid(prediction), grid(target))
    return scores


def test_a_small_matrix_worked_by_hand():
    scores = matrix("0012 0112", "0001 0122")
    assert scores.counts.tolist() == [[3, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]]
    assert scores.counts.dtype == np.int64
    assert scores.iou().tolist() == [3 / 4, 1 / 4, 1 / 3]
    assert scores.miou() == pytest.approx((3 / 4 + 1 / 4 + 1 / 3) / 3)
    assert scores.pixel_accuracy() == 5 / 8


def test_a_perfect_prediction_scores_one():
    scores = matrix("012", "012")
    assert (scores.miou(), scores.pixel_accuracy()) == (1, 1)


def test_ignored_pixels_are_not_counted_whatever_is_predicted_there():
    scores = matrix("0012.", "0....")
    assert scores.counts.sum() == 1
    assert scores.pixel_accuracy() == 1
    assert scores.iou()[0] == 1


def test_an_absent_class_is_nan_and_leaves_the_mean_alone():
    scores = matrix("0011", "0001")
    assert scores.iou()[:2].tolist() == [2 / 3, 1 / 2]
    assert np.isnan(scores.iou()[2])
    assert scores.miou() == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_a_class_that_is_only_predicted_counts_with_zero():
    scores = matrix("0002", "0000")
    assert scores.iou()[2] == 0
    assert scores.miou() == pytest.approx((3 / 4 + 0) / 2)


def test_a_prediction_that_is_no_class_is_wrong_for_the_truth_and_blames_no_other():
    scores = matrix("03.0", "0001")
    assert scores.counts.tolist() == [[1, 0, 0, 2], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert scores.iou()[0] == 1 / 4
    assert scores.pixel_accuracy() == 1 / 4


def test_nothing_counted_is_nan():
    scores = matrix("012", "...")
    assert np.isnan(scores.miou())
    assert np.isnan(scores.pixel_accuracy())
    assert np.isnan(scores.iou()).all()


def test_the_iou_runs_over_all_images_not_image_by_image():
    scores = ConfusionMatrix(2)
    scores.add(grid("0000"), grid("0000"))
    scores.add(grid("01"), grid("10"))
    assert scores.iou().tolist() == [4 / 6, 0]
    other = ConfusionMatrix(2)
    other.add(grid("11"), grid("11"))
    scores += other
    assert scores.iou().tolist() == [4 / 6, 2 / 4]


def test_counts_do_not_overflow_32_bits():
    scores = ConfusionMatrix(2)
    scores.add(np.zeros(1000, np.uint8), np.zeros(1000, np.uint8))
    for _ in range(32):  # 1000 * 2^32 pixels
        scores += scores
    assert scores.counts[0, 0] == 1000 * 2**32
    assert scores.miou() == 1


@pytest.mark.parametrize("value", [3, 100, 254])
def test_a_truth_that_is_no_class_is_refused_and_nothing_is_counted(value):
    scores = ConfusionMatrix(3)
    with pytest.raises(DatasetError, match="labels from 3 to 254"):
        scores.add(np.zeros(4, np.uint8), np.uint8([0, 1, 2, value]))
    assert scores.counts.sum() == 0


@pytest.mark.parametrize("add", [ConfusionMatrix(3).add, RegionAccuracy().add])
@pytest.mark.parametrize(
    ("prediction", "target"),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8)),
        (np.zeros((2, 3), np.int64), np.zeros((2, 3), np.uint8)),
        (np.zeros((2, 3), np.uint8), np.zeros((2, 3), np.float32)),
    ],
)
def test_shapes_and_dtypes_that_differ_are_refused(add, prediction, target):
    with pytest.raises(DatasetError, match="uint8 of one shape"):
        add(prediction, target)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 19), st.data())
def test_the_matrix_is_that_of_a_naive_double_loop(classes, data):
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=6))
    truths = st.one_of(st.integers(0, classes - 1), st.just(255))
    target = data.draw(hnp.arrays(np.uint8, shape, elements=truths))
    prediction = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 255)))
    scores = ConfusionMatrix(classes)
    scores.add(prediction, target)
    naive = [[0] * (classes + 1) for _ in range(classes)]
    for y in range(shape[0]):
        for x in range(shape[1]):
            if target[y, x] != 255:
                naive[target[y, x]][min(int(prediction[y, x]), classes)] += 1
    assert scores.counts.tolist() == naive
    for c, iou in enumerate(scores.iou()):
        hit = ((prediction == c) & (target == c)).sum()
        union = (((prediction == c) & (target != 255)) | (target == c)).sum()
        assert np.isnan(iou) if union == 0 else iou == pytest.approx(hit / union)


# Regions of class 1: 6 pixels left, and 2 that touch them by a corner only; of class 2: 5 pixels
# right; of class 0: 10 pixels, and 1 alone, which is too small.
TARGET = """
1 1 1 2 2 .
1 1 1 2 2 .
0 0 0 1 2 0
0 0 0 1 . .
0 0 0 0 . .
"""
# Right are 3 of the 6, both of the 2, 4 of the 5, and 10 of the 10.
ANSWER = """
1 1 1 2 2 0
0 0 0 2 2 0
0 0 0 1 1 1
0 0 0 1 1 1
0 0 0 0 1 1
"""


def picture(text):
    return grid("\n".join(text.replace(" ", "").split()))


def test_regions_worked_by_hand():
    scores = RegionAccuracy(bin_pixels=3, limit=9, smallest=2)
    scores.add(picture(ANSWER), picture(TARGET))
    # Bins: 0 to 2 pixels, 3 to 5, 6 to 8, 9 and more.
    assert scores.regions.tolist() == [1, 1, 1, 1]
    assert scores.accuracy().tolist() == [2 / 2, 4 / 5, 3 / 6, 10 / 10]
    assert scores.small() == 1
    scores.add(picture(TARGET.replace("1", "3")), picture(TARGET))
    assert scores.regions.tolist() == [2, 2, 2, 2]
    assert scores.accuracy().tolist() == [1 / 2, 9 / 10, 3 / 12, 1]


def test_every_region_weighs_the_same_whatever_its_size():
    scores = RegionAccuracy(bin_pixels=100, limit=100, smallest=1)
    scores.add(grid("0000000002"), grid("0000000001"))
    assert scores.small() == 0.5


def test_bins_without_regions_are_nan():
    scores = RegionAccuracy(bin_pixels=4, limit=8)
    assert np.isnan(scores.accuracy()).all()
    assert np.isnan(scores.small())
    assert len(scores.accuracy()) == 3


def test_the_defaults_are_the_papers_bins():
    scores = RegionAccuracy()
    scores.add(np.zeros((400, 400), np.uint8), np.zeros((400, 400), np.uint8))
    assert len(scores.regions) == 41
    assert scores.regions[40] == 1


def flood(target):
    """The regions of a label map as lists of pixels, found one neighbour at a time."""
    left = {(y, x) for y, x in np.ndindex(target.shape) if target[y, x] != 255}
    while left:
        todo, region = [left.pop()], []
        while todo:
            y, x = todo.pop()
            region.append((y, x))
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if near in left and target[near] == target[y, x]:
                    left.remove(near)
                    todo.append(near)
        yield region


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_regions_are_those_of_a_flood_fill(data):
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))
    truths = st.sampled_from([0, 1, 18, 254, 255])
    target = data.draw(hnp.arrays(np.uint8, shape, elements=truths))
    prediction = data.draw(hnp.arrays(np.uint8, shape, elements=truths))
    scores = RegionAccuracy(bin_pixels=2, limit=8, smallest=2)
    scores.add(prediction, target)
    regions, total = np.zeros(5, int), np.zeros(5)
    for region in flood(target):
        if len(region) >= 2:
            index = min(len(region), 8) // 2
            regions[index] += 1
            total[index] += np.mean([prediction[p] == target[p] for p in region])
    assert scores.regions.tolist() == regions.tolist()
    assert scores.total == pytest.approx(total)
