"""How the classes of one label set answer for those of another."""

import numpy as np
import pytest

from icnet_deploy.data import ConfusionMatrix, prediction_table
from icnet_deploy.data.mapping import target_table
from icnet_deploy.errors import LabelSetError
from icnet_deploy.labels import CAMVID, CITYSCAPES, LabelSet

# CamVid's index and the trainIds that it covers.
PAIRS = {
    0: [10], 1: [2], 2: [5], 3: [0], 4: [1], 5: [8], 6: [7], 7: [4], 8: [13], 9: [11], 10: [12, 18],
}  # fmt: skip


def test_cityscapes_answers_for_camvid():
    table = prediction_table(CITYSCAPES, CAMVID)
    assert (table.dtype, table.shape) == (np.uint8, (256,))
    expected = np.full(256, 255)
    for index, train_ids in PAIRS.items():
        expected[train_ids] = index
    assert table.tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["wall", "traffic light", "terrain", "truck", "bus", "train"])
def test_a_class_that_camvid_does_not_know_is_wrong(name):
    answer = prediction_table(CITYSCAPES, CAMVID)[np.uint8([CITYSCAPES.names.index(name)])]
    scores = ConfusionMatrix(len(CAMVID))
    scores.add(answer, np.uint8([8]))
    assert scores.pixel_accuracy() == 0


@pytest.mark.parametrize("label_set", [CITYSCAPES, CAMVID])
def test_a_label_set_answers_for_itself(label_set):
    table = prediction_table(label_set, label_set)
    assert table[: len(label_set)].tolist() == list(range(len(label_set)))
    assert set(table[len(label_set) :].tolist()) == {255}


def test_only_the_names_decide():
    renamed = LabelSet("other", CAMVID.names, ((0, 0, 0),) * 11)
    assert np.array_equal(prediction_table(renamed, CAMVID), prediction_table(CAMVID, CAMVID))


def test_what_is_not_known_is_refused_by_both_names():
    own = LabelSet("own", ("a", "b"), ((0, 0, 0), (1, 1, 1)))
    for model, data in ((CAMVID, CITYSCAPES), (own, CAMVID), (CITYSCAPES, own)):
        with pytest.raises(LabelSetError, match=f"{model.name!r}.*{data.name!r}"):
            prediction_table(model, data)


def test_classes_in_another_order_or_a_part_of_them_are_found_by_their_names():
    few = LabelSet("few", ("sky", "train", "road"), ((0, 0, 0),) * 3)
    table, merged = target_table(CITYSCAPES, few)
    assert [CITYSCAPES.names[index] for index in table[:3]] == list(few.names)
    assert (merged, set(table[3:])) == ([], {255})
    back = prediction_table(CITYSCAPES, few)
    assert back[table[:3]].tolist() == [0, 1, 2]
    assert (back == 255).sum() == 256 - 3


def test_a_class_that_the_model_has_not_is_named():
    few = LabelSet("few", ("sky", "boat", "road", "dog"), ((0, 0, 0),) * 4)
    with pytest.raises(
        LabelSetError, match=r"no class boat, dog; give --class-map FILE, .* --label-set"
    ):
        target_table(CITYSCAPES, few)
    with pytest.raises(
        LabelSetError,
        match=r"no class boat, dog; give --class-map FILE, which says which .* for which$",
    ):
        prediction_table(CITYSCAPES, few)


def test_camvid_becomes_train_ids_and_the_bicyclist_both():
    table, merged = target_table(CITYSCAPES, CAMVID)
    assert merged == [(12, 18)]
    assert table.dtype == np.uint8
    assert table[:12].tolist() == [10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 19, 255]
    assert target_table(CAMVID, CAMVID)[1] == []
    with pytest.raises(LabelSetError, match=r"'camvid'.*cannot be trained on 'cityscapes'"):
        target_table(CAMVID, CITYSCAPES)


def test_a_score_takes_a_target_for_the_class_that_it_was_made_of():
    """Both tables read one relation: back and forth is where one began."""
    targets, merged = target_table(CITYSCAPES, CAMVID)
    answers = prediction_table(CITYSCAPES, CAMVID)
    for index in range(len(CAMVID)):
        target = int(targets[index])
        classes = merged[target - 19] if target >= 19 else (target,)
        assert {int(answers[c]) for c in classes} == {index}
