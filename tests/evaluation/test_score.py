import dataclasses
import json

import numpy as np
import pytest

from icnet_deploy.data import content_hash
from icnet_deploy.errors import BackendError, DatasetError, InputError, LabelSetError, NotFinite
from icnet_deploy.evaluation.image_score import ImageScore
from icnet_deploy.evaluation.score import (
    Protocol,
    Score,
    percent,
    refuse_calibration_images,
    require_same_protocol,
    score_dataset,
)
from icnet_deploy.labels import CAMVID, CITYSCAPES, LabelSet
from icnet_deploy.metadata import ArtefactMetadata

TWO = LabelSet("two", ("floor", "wall"), ((0, 0, 0), (255, 255, 255)))


def scored(dataset, label_set, *predictions, size=(2, 4), head="logits"):
    score = Score(dataset, label_set, size, head)
    answers = iter(np.array(p, np.uint8) for p in predictions)
    score_dataset(score, dataset, lambda image: next(answers))
    return score


def test_scores_worked_out_by_hand(memory):
    truth = [[0, 0, 0, 1], [0, 1, 1, 255]]
    score = scored(memory(truth, label_set=TWO), TWO, [[0, 0, 1, 1], [0, 1, 0, 0]])
    # floor: 3 hits, 1 missed, 1 too many; wall: 2 hits, 1 missed, 1 too many.
    told = score.to_dict()
    assert told["iou_percent"] == {"floor": 60.0, "wall": 50.0}
    assert told["miou_percent"] == 55.0
    assert told["pixel_accuracy_percent"] == pytest.approx(100 * 5 / 7)
    assert score.images == 1


@pytest.mark.parametrize(("label", "error"), [(2, BackendError), (255, NotFinite)])
def test_what_is_no_class_of_the_model_is_not_counted_but_refused(memory, label, error):
    with pytest.raises(error):
        scored(memory([[0, 0]], label_set=TWO), TWO, [[0, label]])


def test_counts_run_over_all_images(memory):
    score = scored(memory([[0, 0]], [[1, 1]], label_set=TWO), TWO, [[0, 0]], [[0, 1]])
    assert score.to_dict()["iou_percent"] == {"floor": pytest.approx(200 / 3), "wall": 50.0}


def test_every_image_is_counted_by_itself_with_its_group(memory):
    dataset = memory([[0, 0, 1]], [[1, 1, 255]], label_set=TWO)
    dataset.samples[1] = dataclasses.replace(dataset.samples[1], group="drive")
    score = scored(dataset, TWO, [[0, 1, 1]], [[0, 1, 1]])
    first, second = score.images_counted
    assert (first.name, first.group) == ("s0", "s0")
    assert (second.name, second.group) == ("s1", "drive")
    assert [first.right.tolist(), first.truth.tolist(), first.predicted.tolist()] == [
        [1, 1], [2, 1], [1, 2],
    ]  # fmt: skip
    assert [second.right.tolist(), second.truth.tolist(), second.predicted.tolist()] == [
        [0, 1], [0, 2], [1, 1],
    ]  # fmt: skip


def test_an_image_that_is_there_twice_is_of_one_group(memory):
    dataset = memory([[0, 0, 1]], [[0, 0, 1]], [[0, 0, 1]], label_set=TWO)
    dataset.samples[2] = dataclasses.replace(dataset.samples[0], name="copy", group="other")
    score = scored(dataset, TWO, *[[[0, 1, 1]]] * 3)
    assert [one.group for one in score.images_counted] == ["s0", "s1", "s0"]


def test_a_score_of_kept_counts_is_that_of_label_maps(memory):
    rng = np.random.default_rng(3)
    truths = np.kron(rng.integers(0, 2, (3, 4, 5)), np.ones((1, 6, 6))).astype(np.uint8)
    dataset = memory(*truths, label_set=TWO)
    predictions = rng.integers(0, 2, truths.shape).astype(np.uint8)
    fresh = scored(dataset, TWO, *predictions)
    again = Score(dataset, TWO, (2, 4))
    for sample, labels in zip(dataset, predictions, strict=True):
        kept = json.loads(json.dumps(again.count(sample, labels).to_dict()))
        again.take(sample, ImageScore.from_dict(kept, 2))
    assert again.to_dict() == fresh.to_dict()
    assert again.protocol() == fresh.protocol()
    assert np.array_equal(again.confusion.counts, fresh.confusion.counts)
    assert [one.to_dict() for one in again.images_counted] == [
        one.to_dict() for one in fresh.images_counted
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [("confusion", [[1, 2]]), ("confusion", [[1], [2, 3]]), ("regions", [1 << 70]), ("regions", 1)],
)
def test_kept_counts_that_do_not_fit_are_refused(memory, key, value):
    dataset = memory([[0, 1]], label_set=TWO)
    kept = Score(dataset, TWO, None).count(dataset[0], np.uint8([[0, 1]])).to_dict()
    with pytest.raises(InputError, match=r"kept\.json"):
        ImageScore.from_dict({**kept, key: value}, 2, "kept.json")


def test_small_regions_count_one_by_one(memory):
    truth = np.zeros((8, 16), np.uint8)
    truth[:, 8:] = 1
    prediction = truth.copy()
    prediction[:, 12:] = 0  # the first region is right, the second by half
    score = scored(memory(truth, label_set=TWO), TWO, prediction)
    told = score.to_dict()
    assert told["small_region_accuracy_percent"] == 75.0
    assert told["regions"] == [
        {"from_pixels": 0, "to_pixels": 3000, "regions": 2, "accuracy_percent": 75.0}
    ]


def test_a_class_that_stands_for_none_is_wrong(memory):
    names = CITYSCAPES.names
    sky, road, wall = names.index("sky"), names.index("road"), names.index("wall")
    dataset = memory([[0, 0, 3, 3]], label_set=CAMVID)  # sky, sky, road, road
    score = scored(dataset, CITYSCAPES, [[sky, wall, road, road]])
    told = score.to_dict()
    assert told["iou_percent"]["sky"] == 50.0
    assert told["iou_percent"]["road"] == 100.0
    assert told["iou_percent"]["car"] is None
    assert told["pixel_accuracy_percent"] == 75.0
    assert "counts as wrong" in score.protocol().mapping


def test_label_sets_that_do_not_fit_are_refused(memory):
    with pytest.raises(LabelSetError):
        Score(memory([[0]], label_set=CITYSCAPES), TWO, None)


def test_nothing_labelled_is_no_score(memory):
    with pytest.raises(DatasetError, match="labelled pixel"):
        scored(memory([[255, 255]], label_set=TWO), TWO, [[0, 1]])


def test_a_label_map_of_another_size_is_refused(memory):
    with pytest.raises(DatasetError, match="one shape"):
        scored(memory([[0, 1]], label_set=TWO), TWO, [[0]])


def test_look_sees_the_mapped_labels(memory):
    seen = []
    dataset = memory([[0]], label_set=CAMVID)
    score = Score(dataset, CITYSCAPES, None)
    sky = np.array([[CITYSCAPES.names.index("sky")]], np.uint8)
    score_dataset(score, dataset, lambda image: sky, lambda s, m: seen.append((s.name, m.item())))
    assert seen == [("s0", 0)]


def test_a_protocol_states_what_was_done(memory):
    score = scored(memory([[0, 1]], [[0], [1]], label_set=TWO), TWO, [[0, 1]], [[0], [1]])
    told = score.protocol().to_dict()
    assert told["dataset"] == "scenes"
    assert told["split"] == "val"
    assert told["images"] == 2
    assert told["label_sizes"] == ["1x2", "2x1"]
    assert told["model_size"] == "2x4"
    assert told["ignored"] == 255
    assert told["mapping"] == "class by class"


def test_equal_protocols_may_be_compared(memory):
    a, b = (scored(memory([[0, 1]], label_set=TWO), TWO, [[0, x]]) for x in (0, 1))
    require_same_protocol(a.protocol(), b.protocol())


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Protocol)])
def test_protocols_that_differ_are_refused(memory, field):
    protocol = scored(memory([[0, 1]], label_set=TWO), TWO, [[0, 1]]).protocol()
    other = dataclasses.replace(protocol, **{field: ("x",) if field == "label_sizes" else "x"})
    with pytest.raises(InputError, match=field):
        require_same_protocol(protocol, other)


def test_the_heads_have_one_protocol_only_where_nothing_is_resized(memory):
    def protocol(size, head):
        dataset = memory([[0, 1]], label_set=TWO)
        return scored(dataset, TWO, [[0, 1]], size=size, head=head).protocol()

    require_same_protocol(protocol((1, 2), "logits"), protocol((1, 2), "labels"))
    with pytest.raises(InputError, match="logits_resize"):
        require_same_protocol(protocol((4, 8), "logits"), protocol((4, 8), "labels"))


def test_images_of_the_calibration_are_refused(memory):
    dataset = memory([[0, 1]], [[1, 1]], label_set=TWO)
    refuse_calibration_images(dataset, {"a.onnx": ["0" * 64]})
    digest = content_hash(dataset[1].image)
    with pytest.raises(InputError, match=r"s1 was used to calibrate b\.onnx"):
        refuse_calibration_images(dataset, {"a.onnx": [], "b.onnx": [digest]})


def test_what_is_not_a_number_is_null():
    assert percent(float("nan")) is None
    assert percent(0.5) == 50.0


@pytest.mark.parametrize(
    ("upsampling", "head", "words"),
    [
        ("aligned-corners", "logits", "bilinear with aligned corners to the ground truth's size"),
        ("half-pixel", "logits", "bilinear with half-pixel centres to the ground truth's size"),
        ("half-pixel", "labels", "bilinear with half-pixel centres to the model's size, argmax"),
        ("none", "logits", "not resized: argmax, then the label map by nearest neighbour"),
    ],
)
def test_the_protocol_says_how_logits_became_pixels(memory, upsampling, head, words):
    dataset = memory([[0, 0], [0, 1]], label_set=TWO)
    score = Score.of(dataset, ArtefactMetadata(TWO, (1, 1), head, "fp32", upsampling=upsampling))
    score.add(dataset[0], np.zeros((2, 2), np.uint8))
    assert score.protocol().logits_resize.startswith(words)
