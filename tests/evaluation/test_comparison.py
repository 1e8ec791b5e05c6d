from pathlib import Path

import numpy as np
import pytest

from icnet_deploy.errors import InputError, ModelError
from icnet_deploy.evaluation.answer import answer_of
from icnet_deploy.evaluation.budgets import BUDGETS
from icnet_deploy.evaluation.confidence.counts import ImageCounts
from icnet_deploy.evaluation.float_network import Origin
from icnet_deploy.evaluation.parity.comparison import (
    AGREES,
    FLIP,
    TIE,
    Comparison,
    PixelCounts,
    difference_map,
)
from icnet_deploy.evaluation.parity.references import References
from icnet_deploy.evaluation.parity.report import headline, notes, sentences
from icnet_deploy.evaluation.reference import Reference
from icnet_deploy.evaluation.score import Score
from icnet_deploy.evaluation.verdicts import Verdict
from icnet_deploy.images import Fitting
from icnet_deploy.labels import LabelSet
from icnet_deploy.metadata import ArtefactMetadata

TWO = LabelSet("two", ("floor", "wall"), ((0, 0, 0), (255, 255, 255)))
THREE = LabelSet("two", ("floor", "wall", "roof"), ((0, 0, 0), (255, 255, 255), (9, 9, 9)))

# One row of six pixels, as many as the grid has: floor wins by these margins.
MARGINS = np.array([2.0, 0.002, 0.0009, 0.04, 0.2, 0.3], np.float32)
LOGITS = np.stack([MARGINS, np.zeros(6, np.float32)])[:, None]


def answer():
    return answer_of(LOGITS, (1, 6))


def comparison(dataset, precision="fp32", label_set=TWO):
    metadata = ArtefactMetadata(label_set, (1, 6), "logits", precision)
    scores = [Score(dataset, label_set, (1, 6)) for _ in range(2)]
    budget = BUDGETS[precision]
    return Comparison(Path("a.onnx"), "a.onnx", "0" * 64, metadata, "fake", "cpu", *scores, budget)


@pytest.mark.parametrize(
    ("margin", "expected"),
    [
        (1e-3, [FLIP, FLIP, TIE, FLIP, FLIP, FLIP]),
        (0.05, [FLIP, TIE, TIE, TIE, FLIP, FLIP]),
        (0.25, [FLIP, TIE, TIE, TIE, TIE, FLIP]),
    ],
)
def test_ties_and_flips_are_told_apart(margin, expected):
    assert not answer().labels.any()
    wrong = np.ones((1, 6), np.uint8)
    assert difference_map(answer(), wrong, margin).tolist() == [expected]


def test_pixels_that_agree_are_no_ties():
    labels = np.array([[0, 0, 0, 1, 0, 0]], np.uint8)
    expected = [AGREES, AGREES, AGREES, TIE, AGREES, AGREES]
    assert difference_map(answer(), labels, 0.05).tolist() == [expected]


def test_a_row_counts_what_differs(memory):
    dataset = memory([[0, 0, 0, 0, 1, 255]], label_set=TWO)
    row = comparison(dataset)
    row.reference.add(dataset[0], answer().labels)
    row.add(dataset[0], answer(), np.array([[0, 0, 1, 1, 1, 1]], np.uint8))
    assert (row.pixels, row.ties, row.flips) == (6, 1, 3)  # unlabelled pixels are compared, too
    assert row.agreement() == pytest.approx(2 / 6)
    # The reference: floor 4 of 5, wall none of 1. The artefact: floor 2 of 4, wall 1 of 3.
    classes = row.differences().classes
    assert classes["floor"].value == pytest.approx(-30)
    assert classes["wall"].value == pytest.approx(100 / 3)
    assert row.miou_points() == pytest.approx((-30 + 100 / 3) / 2)
    assert row.worst_class() == ("wall", classes["wall"])  # of a float a rise is as bad
    told = row.to_dict()
    assert told["verdict"] == "undecided"  # one image says nothing of others
    assert told["miou_difference_points"] == row.differences().miou.to_dict()
    assert (told["ties"], told["flips"], told["differing_pixels"]) == (1, 3, 4)


def test_differences_are_those_of_the_images_so_far(memory):
    dataset = memory(*[[[0, 0, 0, 0, 1, 1]]] * 2, label_set=TWO)
    row = comparison(dataset)
    for sample, labels in zip(dataset, ([0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1]), strict=True):
        row.reference.add(sample, answer().labels)
        row.add(sample, answer(), np.array([labels], np.uint8))
        known = row.differences()
        assert known.images == row.score.images
        assert known.alike.value == pytest.approx(row.agreement())
        assert row.differences() is known
        assert row.differences(0.99) is not known
        assert row.differences(0.99).level == 0.99
    row.level = 0.98
    assert row.differences().level == 0.98


def counted(row, ours, theirs, truth=(1000, 1000), images=12):
    """Adds images to a row: functions give the right pixels of each class, of so many in truth."""

    def counts(right, index):
        right = np.array(right)
        return ImageCounts(str(index), str(index), right, np.array(truth), right, 0, 0.0)

    for index in range(images):
        row.score.images_counted.append(counts(ours(index), index))
        row.reference.images_counted.append(counts(theirs(index), index))
        row.pixel_counts.append(PixelCounts(1000, 0, 0))
    for score in (row.score, row.reference):
        score.confusion.counts[0, 0] += 1  # there is a truth
    return row


def test_shares_of_pixels_have_intervals(memory):
    """That of pixels alike is the one that the verdict rests on."""
    row = counted(comparison(memory(label_set=TWO)), *[lambda index: (900, 900)] * 2)
    row.pixel_counts = [PixelCounts(1000, 30 - index, index % 3) for index in range(12)]
    shares = row.pixel_percent()
    assert shares["alike"].low == pytest.approx(100 * row.differences().alike.low)
    assert shares["flips"].value == pytest.approx(0.1)
    assert 0 <= shares["flips"].low < 0.1 < shares["flips"].high
    assert row.to_dict()["ties_percent"] == shares["ties"].to_dict()


def test_int8_is_held_to_what_it_loses_and_shows_what_rose(memory):
    """The worst class is the one that fell; one that rose far beyond the limit fails nothing."""

    def ours(index):
        return 900 - index % 2, 990 + index % 3

    row = counted(comparison(memory(label_set=TWO), "int8"), ours, lambda index: (900, 900))
    name, worst = row.worst_class()
    assert (name, worst.value < 0) == ("floor", True)
    assert row.differences().classes["wall"].low > 5
    assert row.judgement().verdict is Verdict.WITHIN
    assert [line.partition(" +")[0] for line in sentences(row)] == [
        "rose by more than the limit for a fall, which is no fault for INT8: wall"
    ]


def test_the_worst_class_is_past_its_limit_if_one_is(memory):
    """One that fell further, and is not known well enough, comes after it."""

    def ours(index):
        return 870 + index % 2, 900 * (index > 0)

    row = counted(comparison(memory(label_set=TWO), "int8"), ours, lambda index: (900, 900))
    values = {name: one.value for name, one in row.differences().classes.items()}
    assert values["wall"] < values["floor"] < -1
    assert row.worst_class()[0] == "floor"
    assert row.judgement().verdict is Verdict.PAST


def test_undecided_classes_are_named_together(memory):
    """A sentence for each reason, whatever number of classes: not one for each class."""

    def ours(index):
        a, b = 40 * (index % 2), 40 * (index % 3)
        return 900 - a, 900 - b, 900 - b, 9, 900 - a

    names = ("floor", "wall", "door", "roof", "tree")
    five = LabelSet("five", names, tuple((9 * n,) * 3 for n in range(5)))
    row = comparison(memory(label_set=five), "int8", five)
    truth = (1000, 1000, 1000, 10, 1000)
    counted(row, ours, lambda index: (885, 870, 869, 9, 885), truth)
    mean, crossed, endless, unseen = sentences(row)
    assert mean.startswith("undecided: mIoU -0.")
    assert (
        "the intervals of floor, door and tree contain the limit (at most 1 point lower)" in crossed
    )
    assert "the difference of wall is as large as the limit" in endless
    few = "the images show too little of roof: at least 6 groups and 1,000 pixels are needed"
    assert few in unseen
    assert headline([row]).startswith("12 images in 12 groups; for mIoU they count as ")
    assert headline([row]).endswith(
        " (no number of images decides it: a difference is as large as its limit)."
    )


def test_one_image_decides_nothing(memory):
    row = counted(comparison(memory(label_set=TWO), "int8"), *[lambda i: (900, 900)] * 2, images=1)
    assert row.judgement().verdict is Verdict.UNDECIDED
    assert "mIoU +0.000 points [-100.000, +100.000]" in sentences(row)[0]
    assert headline([row]).endswith("a.onnx on fake (too few images to tell anything).")


def test_a_class_without_truth_does_not_swing_the_difference(memory):
    dataset = memory([[0, 0, 0, 1, 1, 255]], label_set=THREE)
    row = comparison(dataset, label_set=THREE)
    labels = np.array([[0, 0, 0, 1, 1, 0]], np.uint8)
    row.reference.add(dataset[0], labels)
    row.add(dataset[0], answer(), np.array([[0, 0, 0, 1, 2, 0]], np.uint8))
    points = {name: one.value for name, one in row.differences().classes.items()}
    assert points == {"floor": 0.0, "wall": -50.0}
    assert row.miou_points() == -25.0


def test_scores_of_other_images_are_not_compared(memory):
    dataset = memory([[0] * 6], [[0] * 6], label_set=TWO)
    row = comparison(dataset)
    row.reference.add(dataset[0], answer().labels)
    row.reference.add(dataset[1], answer().labels)
    row.add(dataset[0], answer(), answer().labels)
    with pytest.raises(InputError, match="images: 1 and 2"):
        row.judgement()


def test_labels_of_another_size_are_refused(memory):
    dataset = memory([[0] * 6], label_set=TWO)
    with pytest.raises(ModelError, match="image of 1x6"):
        comparison(dataset).add(dataset[0], answer(), np.zeros((1, 5), np.uint8))


class Counting:
    """A network that counts its runs."""

    metadata = ArtefactMetadata(TWO, None, "logits", "fp32")
    origin = Origin("pytorch", "a.safetensors", "0" * 64)
    fitting = Fitting()

    def __init__(self):
        self.runs = []
        self.identity = {"pytorch": "a"}

    def require_size(self, size):
        pass

    def run(self, pixels):
        self.runs.append(pixels.shape[:2])
        return LOGITS * (1 + pixels[0, 0, 0])  # the n-th image is grey of n

    def tie_margins(self, largest):
        return {32: largest / 1000}


def test_the_reference_runs_once_a_size_and_image(memory):
    network = Counting()
    dataset = memory([[0] * 6], [[1] * 6], label_set=TWO)
    keys = {((1, 6), "logits"), ((1, 6), "labels"), ((2, 12), "labels"), ((2, 12), "logits")}
    references = References(Reference(network, None), keys, dataset)
    for sample in dataset:
        answers = references.add(sample)
    assert sorted(network.runs) == [(1, 6), (1, 6), (2, 12), (2, 12)]
    assert {score.images for score in references.scores.values()} == {2}
    assert answers[(1, 6), "logits"] is answers[(1, 6), "labels"]
    assert answers[(2, 12), "labels"].upsampled == (2, 12)
    assert answers[(2, 12), "logits"].upsampled == (1, 6)


def test_a_map_of_one_class_proves_little(memory):
    dataset = memory([[0, 0, 1, 1, 1, 1]], label_set=TWO)
    row = comparison(dataset)
    for score in (row.score, row.reference):
        score.add(dataset[0], answer().labels)
    assert row.shown() == 1
    (note,) = notes([row])
    assert note.startswith("the reference's own label map shows only one class on more than 1 %")
    both = np.array([[0, 0, 0, 1, 1, 1]], np.uint8)
    row.reference.add(dataset[0], both)
    assert (row.shown(), notes([row])) == (2, [])


def test_where_ties_are_right_only_flips_are_lost(memory):
    """Of images without labels: the reference's own map is the truth, and either label of a tie."""
    dataset = memory([[0] * 6], label_set=TWO)
    object.__setattr__(dataset, "labelled", False)
    row = comparison(dataset)
    row.ties_are_right = True
    one, _ = row.count(dataset[0], answer(), np.array([[0, 0, 1, 1, 0, 0]], np.uint8))
    assert (one.pixels.ties, one.pixels.flips) == (1, 1)
    assert one.score.confusion.counts[0].tolist() == [5, 1, 0]


def test_the_network_states_its_ties_by_the_first_image(memory):
    dataset = memory([[0] * 6], [[1] * 6], label_set=TWO)
    references = References(Reference(Counting(), None), {((1, 6), "logits")}, dataset)
    for sample in dataset:
        references.add(sample)
        assert references.tie_margins == {32: pytest.approx(2 / 1000)}
