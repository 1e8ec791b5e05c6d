from pathlib import Path

import numpy as np
import pytest

from icnet_deploy.errors import InputError, ModelError
from icnet_deploy.evaluation.budgets import BUDGETS
from icnet_deploy.evaluation.parity.comparison import (
    AGREES,
    FLIP,
    TIE,
    Comparison,
    References,
    difference_map,
)
from icnet_deploy.evaluation.reference import answer_of
from icnet_deploy.evaluation.score import Score
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
    assert row.class_points() == pytest.approx({"floor": -30.0, "wall": 100 / 3})
    assert row.miou_points() == pytest.approx((-30 + 100 / 3) / 2)
    assert row.worst_class() == ("wall", pytest.approx(100 / 3))
    assert len(row.breaches()) == 2
    told = row.to_dict()
    assert told["verdict"] == "fail"
    assert (told["ties"], told["flips"], told["differing_pixels"]) == (1, 3, 4)


def test_a_class_without_truth_does_not_swing_the_difference(memory):
    dataset = memory([[0, 0, 0, 1, 1, 255]], label_set=THREE)
    row = comparison(dataset, label_set=THREE)
    labels = np.array([[0, 0, 0, 1, 1, 0]], np.uint8)
    row.reference.add(dataset[0], labels)
    row.add(dataset[0], answer(), np.array([[0, 0, 0, 1, 2, 0]], np.uint8))
    assert row.class_points() == {"floor": 0.0, "wall": -50.0}
    assert row.miou_points() == -25.0


def test_scores_of_other_images_are_not_compared(memory):
    dataset = memory([[0] * 6], [[0] * 6], label_set=TWO)
    row = comparison(dataset)
    row.reference.add(dataset[0], answer().labels)
    row.reference.add(dataset[1], answer().labels)
    row.add(dataset[0], answer(), answer().labels)
    with pytest.raises(InputError, match="images: 1 and 2"):
        row.breaches()


def test_labels_of_another_size_are_refused(memory):
    dataset = memory([[0] * 6], label_set=TWO)
    with pytest.raises(ModelError, match="image of 1x6"):
        comparison(dataset).add(dataset[0], answer(), np.zeros((1, 5), np.uint8))


class Counting:
    """A reference that counts its runs."""

    label_set = TWO
    upsampling = "aligned-corners"

    def __init__(self, runs=None, size=None):
        self.runs = [] if runs is None else runs
        self.size = size

    def at(self, size):
        return Counting(self.runs, size)

    def logits(self, image):
        self.runs.append(self.size)
        return LOGITS * (1 + image[0, 0, 0])  # the n-th image is grey of n

    def tie_margins(self, largest):
        return {32: largest / 1000}


def test_the_reference_runs_once_a_size_and_image(memory):
    reference = Counting()
    dataset = memory([[0] * 6], [[1] * 6], label_set=TWO)
    keys = {((1, 6), "logits"), ((1, 6), "labels"), ((2, 12), "labels"), ((2, 12), "logits")}
    references = References(reference, keys, dataset)
    for sample in dataset:
        answers = references.answers(sample)
        assert set(answers) == keys
    assert sorted(reference.runs) == [(1, 6), (1, 6), (2, 12), (2, 12)]
    assert {score.images for score in references.scores.values()} == {2}
    assert answers[(1, 6), "logits"] is answers[(1, 6), "labels"]
    assert answers[(2, 12), "labels"].upsampled == (2, 12)
    assert answers[(2, 12), "logits"].upsampled == (1, 6)


def test_the_network_states_its_ties_by_the_first_image(memory):
    dataset = memory([[0] * 6], [[1] * 6], label_set=TWO)
    references = References(Counting(), {((1, 6), "logits")}, dataset)
    for sample in dataset:
        references.answers(sample)
        assert references.tie_margins == {32: pytest.approx(2 / 1000)}
