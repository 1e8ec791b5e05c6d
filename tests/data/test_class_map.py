"""A user's own rule of which classes stand for which."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest

from icnet_deploy.data import Dataset, open_dataset, prediction_table
from icnet_deploy.data.mapping import load_class_map, target_table
from icnet_deploy.data.options import add_data_options, open_data
from icnet_deploy.errors import LabelSetError
from icnet_deploy.evaluation.score import Score
from icnet_deploy.images import write_image, write_labels
from icnet_deploy.labels import CAMVID, CITYSCAPES, LabelSet

FINE = LabelSet("fine", ("car", "truck", "sky", "grass"), ((1, 1, 1),) * 4)
COARSE = LabelSet("coarse", ("grass", "vehicle", "boat"), ((1, 1, 1),) * 3)
RULES = {"truck": "vehicle", "car": "vehicle", "sky": None}


def write(path, source=FINE, target=COARSE, classes=RULES):
    """Writes a class map; a label set becomes an object."""
    sets = [s.to_dict() if isinstance(s, LabelSet) else s for s in (source, target)]
    path.write_text(json.dumps({"from": sets[0], "to": sets[1], "classes": classes}))
    return path


@pytest.fixture
def fields(tmp_path):
    """Makes a folder of one image with these labels, 2 x 4, of a label set."""

    def make(label_set, labels):
        root = tmp_path / label_set.name
        write_image(root / "images/val/a.png", np.full((2, 4, 3), 90, np.uint8))
        write_labels(root / "labels/val/a.png", np.array(labels, np.uint8).reshape(2, 4))
        (root / "classes.json").write_text(json.dumps(label_set.to_dict()))
        return root

    return make


def test_a_class_stands_for_what_is_listed_or_has_its_name_or_for_none(tmp_path):
    class_map = load_class_map(write(tmp_path / "map.json"))
    assert (class_map.source, class_map.target) == (FINE, COARSE)
    assert class_map.table()[:5].tolist() == [1, 1, 255, 0, 255]
    assert (class_map.unlisted, class_map.unanswered()) == ((), ["boat"])
    assert str(class_map) == "grass: grass; car, truck: vehicle; sky: none"
    some = load_class_map(write(tmp_path / "map.json", classes={"car": "boat"}))
    assert (some.unlisted, some.answers) == (("truck", "sky"), (2, 255, 255, 0))


def test_a_set_is_named_by_its_name_or_by_its_file_beside_the_map(tmp_path):
    (tmp_path / "coarse.json").write_text(json.dumps(COARSE.to_dict()))
    path = write(tmp_path / "map.json", "cityscapes", "coarse.json", {"car": "vehicle"})
    class_map = load_class_map(path)
    assert (class_map.source, class_map.target) == (CITYSCAPES, COARSE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"classes": {"bus": "boat", "tram": None}},
            "classes 'bus', 'tram', which its 'from', fine, does not",
        ),
        (
            {"classes": {"car": "ship"}},
            r"map\.json names the class 'ship', which its 'to', coarse, does",
        ),
        ({"to": "none.json"}, "cannot read"),
        ({"classes": {"car": 3}}, "classes is .* expected"),
        ({"rules": {}}, "it holds rules; known: classes, from, to"),
    ],
)
def test_a_map_that_names_what_there_is_not_is_refused(tmp_path, change, message):
    path = write(tmp_path / "map.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(LabelSetError, match=message):
        load_class_map(path)


def test_predictions_of_from_are_scored_in_the_classes_of_to(tmp_path, fields):
    root = fields(COARSE, [0, 0, 1, 1, 2, 2, 255, 255])
    dataset = open_dataset("folder", root, class_map=write(tmp_path / "map.json"))
    score = Score(dataset, FINE, None)
    predicted = np.uint8([[3, 2, 0, 1], [0, 2, 2, 3]])  # sky is none: wrong where truth is known
    mapped = score.add(dataset[0], predicted)
    assert mapped.tolist() == [[0, 255, 1, 1], [1, 255, 255, 0]]
    assert score.confusion.counts.tolist() == [[1, 0, 0, 1], [0, 2, 0, 0], [0, 1, 0, 1]]
    protocol = score.protocol()
    assert (
        protocol.mapping == "by a class map from fine: grass: grass; car, truck: vehicle; sky: none"
    )
    assert (protocol.data_label_set, protocol.groups) == (
        "coarse, 3 classes",
        "each image by itself",
    )


def test_labels_of_from_are_read_as_those_of_to(tmp_path, fields):
    """A network of the classes of `to` is scored class by class, beside one of `from`."""
    root = fields(FINE, [0, 1, 2, 3, 255, 0, 0, 0])
    dataset = open_dataset("folder", root, class_map=write(tmp_path / "map.json"))
    assert dataset.label_set == COARSE
    assert dataset[0].labels.tolist() == [[1, 1, 255, 0], [255, 1, 1, 1]]
    assert dataset.first(1).class_map == dataset.class_map
    for network, predicted in ((FINE, [3, 0, 1]), (COARSE, [0, 1, 1])):
        table = prediction_table(network, COARSE, dataset.class_map)
        assert table[predicted].tolist() == [0, 1, 1]


def test_a_network_is_trained_on_classes_that_its_own_stand_for(tmp_path):
    class_map = load_class_map(write(tmp_path / "map.json"))
    table, merged = target_table(FINE, COARSE, class_map)
    assert merged == [(0, 1)]
    assert table[:4].tolist() == [3, 4, 255, 255]  # grass, car or truck; of boat nothing is learnt
    assert target_table(COARSE, COARSE, class_map)[0][:3].tolist() == [0, 1, 2]


def test_what_fits_neither_side_is_refused(tmp_path, fields):
    path = write(tmp_path / "map.json")
    root = fields(CAMVID, [0] * 8)
    with pytest.raises(LabelSetError, match="from 'fine' to 'coarse'; folder's classes, sky, b"):
        open_dataset("folder", root, class_map=path)
    dataset = open_dataset("folder", fields(COARSE, [0] * 8), class_map=path)
    with pytest.raises(LabelSetError, match=r"to 'coarse'; the model's label set 'camvid' \(11 cl"):
        Score(dataset, CAMVID, None)
    with pytest.raises(LabelSetError, match=r"cannot be scored on 'coarse' .* --class-map FILE"):
        prediction_table(FINE, COARSE)


def test_what_stands_for_nothing_is_said_once(tmp_path, fields, capsys):
    path = write(tmp_path / "map.json", classes={"car": "vehicle"})
    root = fields(COARSE, [0] * 8)
    parser = argparse.ArgumentParser()
    add_data_options(parser)
    argv = ["--dataset", "folder", "--data", str(root), "--class-map", str(path)]
    for _ in range(2):
        assert isinstance(open_data(parser.parse_args(argv)), Dataset)
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"note: {path} does not list truck, sky of fine, and coarse has no class of that name, so "
        "they stand for no class",
        f"note: in {path}, no class of fine stands for boat of coarse",
    ]
