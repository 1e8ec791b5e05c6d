"""A folder whose labels are a teacher's: what is read, what is scored, and what is refused."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icnet_deploy.data import open_dataset, prediction_table
from icnet_deploy.data.dataset import Incomplete
from icnet_deploy.data.mapping import ClassMap, class_map_of, decision_table, target_table
from icnet_deploy.data.options import add_data_options, open_data
from icnet_deploy.data.teacher import least_level
from icnet_deploy.errors import DatasetError, InputError, LabelSetError
from icnet_deploy.images import write_image, write_labels
from icnet_deploy.labels import CAMVID, CITYSCAPES, IGNORE, LabelSet, label_set_of

FINE = label_set_of({"name": "fine", "names": ["car", "bus", "tree", "grass", "path"]}, "tests")
"""A teacher's classes."""
COARSE = label_set_of({"name": "coarse", "names": ["vehicle", "wood", "ground", "boat"]}, "tests")
"""A person's."""
INSIDE = {
    "car": "vehicle",
    "bus": "vehicle",
    "tree": "wood",
    "grass": ["wood", "ground"],
    "path": "ground",
}
VEHICLE, WOOD, GROUND = (0, 1), (2, 3), (3, 4)

TAUGHT = np.array([[0, 1, 2, 3], [4, 255, 0, 0]], np.uint8)
SURE = np.array([[255, 200, 128, 127], [10, 0, 255, 255]], np.uint8)
PERSON = np.array([[0, 0, 2, 1], [2, 0, 255, 3]], np.uint8)


@pytest.fixture
def taught(tmp_path):
    """Writes a folder of one image, in `train`, that a teacher and perhaps a person labelled."""

    def make(person=PERSON, name="a", root=tmp_path / "taught"):
        write_image(root / f"images/train/{name}.png", np.full((2, 4, 3), len(name), np.uint8))
        write_labels(root / f"labels/train/{name}.png", TAUGHT)
        write_labels(root / f"confidence/train/{name}.png", SURE)
        (root / "classes.json").write_text(json.dumps({"label_set": FINE.to_dict()}))
        if person is not None:
            write_labels(root / f"person/train/{name}.png", person)
            described = {"label_set": COARSE.to_dict(), "classes": INSIDE}
            (root / "person.json").write_text(json.dumps(described))
        return root

    return make


def change(root, **keys):
    """Changes keys of `person.json`; None removes one."""
    path = root / "person.json"
    value = json.loads(path.read_text()) | keys
    path.write_text(json.dumps({k: v for k, v in value.items() if v is not None}))


def test_the_labels_are_a_teachers_and_it_says_how_sure_it_is(taught):
    dataset = open_dataset("folder", taught(None), "train")
    assert (dataset.name, dataset.label_set) == ("folder, labels of a network", FINE)
    assert dataset[0].labels.tolist() == TAUGHT.tolist()
    assert not dataset.teacher.person
    image = dataset.files[0][0]
    assert dataset.teacher.confidence(image, (2, 4)).tolist() == SURE.tolist()
    hash(dataset)  # as of all others


def test_where_a_person_labelled_the_samples_have_the_persons_labels(taught):
    dataset = open_dataset("folder", taught(), "train")
    assert (dataset.name, dataset.label_set, dataset.own_classes) == ("folder", COARSE, FINE)
    assert dataset[0].labels.tolist() == PERSON.tolist()
    assert dataset.teacher.labels(dataset.files[0][0], (2, 4)).tolist() == TAUGHT.tolist()
    # A network of the teacher's classes is scored in the person's, each class in one of them.
    table = prediction_table(FINE, COARSE, dataset.class_map)
    assert table[:6].tolist() == [0, 0, 1, 1, 2, 255]


def test_splits_without_confidence_are_as_they_were(taught):
    root = taught()
    write_image(root / "images/val/b.png", np.zeros((2, 4, 3), np.uint8))
    write_labels(root / "labels/val/b.png", TAUGHT)
    dataset = open_dataset("folder", root, "val")
    assert (dataset.name, dataset.label_set, dataset.teacher) == ("folder", FINE, None)


def test_a_persons_files_may_hold_ids_and_what_is_no_class(taught):
    root = taught(np.where(PERSON == 255, 0, PERSON + 40).astype(np.uint8))
    ids = {**COARSE.to_dict(), "label_ids": [40, 41, 42, 43]}
    change(root, label_set=ids)
    assert open_dataset("folder", root, "train")[0].labels.tolist() == PERSON.tolist()


def test_what_is_scored_is_said(taught, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    add_data_options(parser)
    for person, said in (
        (PERSON, "scored on the labels of a person"),
        (None, "a network made the labels"),
    ):
        root = taught(person, root=tmp_path / f"{person is None}")
        argv = ["--dataset", "folder", "--data", str(root), "--split", "train"]
        for _ in range(2):
            open_data(parser.parse_args(argv))
        err = capsys.readouterr().err
        assert err.count(said) == 1
        assert f"note: {root.name} train: " in err
        lacks = "person.json, no class of fine stands for boat of coarse"
        assert (lacks in err) == (person is not None)


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        ("confidence/train/a.png", r"images/train/a\.png has no confidence: .*/train/a\.png is mi"),
        (
            "labels/train/a.png",
            r"a\.png has no labels of the teacher: .*labels/train/a\.png is mis",
        ),
        ("person/train/a.png", r"1 of 2 folder images have no labels; first: .*person/train/a\.pn"),
    ],
)
def test_what_is_missing_is_named_and_the_rest_is_whole(taught, removed, said):
    root = taught()
    taught(name="b")
    (root / removed).unlink()
    with pytest.raises(Incomplete, match=said) as caught:
        open_dataset("folder", root, "train")
    assert [sample.name for sample in caught.value.rest] == ["b"]
    assert caught.value.rest.teacher.person


def test_halves_of_a_layout_are_refused(taught):
    root = taught()
    (root / "person").rename(root / "gone")
    with pytest.raises(
        InputError, match=r"there is .*person\.json, but no .*person with the labels that it"
    ):
        open_dataset("folder", root, "train")
    (root / "gone").rename(root / "person")
    (root / "person.json").rename(root / "gone.json")
    with pytest.raises(
        DatasetError, match=r"person needs .*person\.json, which says what its labels mean"
    ):
        open_dataset("folder", root, "train")
    (root / "gone.json").rename(root / "person.json")
    (root / "confidence").rename(root / "gone")
    with pytest.raises(InputError, match=r"there is .*person/train, but no .*confidence/train: "):
        open_dataset("folder", root, "train")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"classes": None}, "classes is missing"),
        (
            {"classes": {"tram": "vehicle"}},
            "names the class 'tram', which the folder's classes.json, fine,",
        ),
        (
            {"classes": {"car": "van"}},
            "names the class 'van', which its 'label_set', coarse, does not",
        ),
        ({"classes": {"car": []}}, "classes is .* expected"),
        ({"group_by": "x"}, "it holds group_by"),
    ],
)
def test_a_persons_classes_that_there_are_not_are_refused(taught, keys, said):
    root = taught()
    change(root, **keys)
    with pytest.raises((DatasetError, LabelSetError), match=rf"person\.json.*{said}"):
        open_dataset("folder", root, "train")


@pytest.mark.parametrize(
    ("kind", "write", "said"),
    [
        (
            "confidence",
            lambda path: write_labels(path, SURE[:, :3]),
            "is 2x3, its image a.png is 2x4",
        ),
        ("labels", lambda path: write_labels(path, TAUGHT[:1]), "is 1x4, its image a.png is 2x4"),
        ("labels", lambda path: write_labels(path, TAUGHT + 90), "holds the value"),
        (
            "confidence",
            lambda path: Image.fromarray(SURE.astype(np.uint16)).save(path),
            "has 16 bits for each pixel; expected grey of 8 bits",
        ),
        (
            "confidence",
            lambda path: Image.fromarray(SURE).convert("P").save(path),
            "has a palette; expected grey of 8 bits",
        ),
        (
            "confidence",
            lambda path: Image.fromarray(SURE.astype(np.uint16) * 257).save(path),
            "has 16 bits for each pixel; expected grey of 8 bits, 0 to 255",
        ),
        (
            "confidence",
            lambda path: write_image(path, np.ones((2, 4, 3), np.uint8)),
            "is in colours; expected grey of 8 bits, 0 to 255",
        ),
    ],
)
def test_files_of_a_teacher_that_do_not_fit_are_problems(taught, run, kind, write, said):
    root = taught()
    write(root / kind / "train/a.png")
    done = run("dataset", "check", root)
    assert done.code == 1
    assert said in " ".join(done.out.split())
    assert f"{kind}/train/a.png" in done.out


def test_a_check_tells_of_a_teacher(taught, run):
    root = taught()
    write_image(root / "images/val/b.png", np.zeros((2, 4, 3), np.uint8))
    write_labels(root / "labels/val/b.png", TAUGHT)
    done = run("dataset", "check", root)
    assert done.code == 0, done.out + done.err
    out = " ".join(done.out.split())
    assert "9 classes of coarse and fine" in out  # a person's, and of val the teacher's
    assert "train: scored on the labels of a person" in out
    assert "75.0 % of the pixels from 0.25, 62.5 % of the pixels from 0.5" in out
    write_labels(root / "confidence/train/c.png", SURE)
    done = run("dataset", "check", root)
    assert "confidence/train/c.png has no image: add it, or remove" in " ".join(done.out.split())


def sets(table, merged, network=FINE):
    """What each target of a table stands for, as sets of the network's classes."""
    groups = {**{i: (i,) for i in range(len(network))}, IGNORE: ()}
    groups |= {len(network) + i: group for i, group in enumerate(merged)}
    return np.vectorize(lambda target: str(groups[int(target)]))(table)


def test_a_teacher_decides_inside_what_a_person_named_and_alone_elsewhere():
    inside = class_map_of(FINE, COARSE, INSIDE, "tests")
    table, merged = decision_table(FINE, (COARSE, inside), (FINE, None))
    none = IGNORE
    found = sets(table[[0, 1, 2, 3, none]][:, [0, 1, 2, 3, 4, none]], merged)
    v, w, g = map(str, (VEHICLE, WOOD, GROUND))
    assert found.tolist() == [
        ["(0,)", "(1,)", v, v, v, v],
        [w, w, "(2,)", "(3,)", w, w],
        [g, g, g, "(3,)", "(4,)", g],
        ["()"] * 6,  # a boat: the person knows better than to ask the teacher
        ["(0,)", "(1,)", "(2,)", "(3,)", "(4,)", "()"],
    ]
    assert set(merged) == {VEHICLE, WOOD, GROUND}


def test_a_teacher_of_coarser_classes_narrows_a_persons():
    """The network tells more apart than either: what both allow is the target."""
    ours = label_set_of({"name": "ours", "names": ["a", "b", "c", "d"]}, "tests")
    left = label_set_of({"name": "left", "names": ["abc", "d"]}, "tests")
    right = label_set_of({"name": "right", "names": ["a", "bcd"]}, "tests")
    of_left = class_map_of(ours, left, {"a": "abc", "b": "abc", "c": "abc"}, "tests")
    of_right = class_map_of(ours, right, {"b": "bcd", "c": "bcd", "d": "bcd"}, "tests")
    table, merged = decision_table(ours, (left, of_left), (right, of_right))
    found = sets(table[[0, 1, IGNORE]][:, [0, 1, IGNORE]], merged, ours)
    assert found.tolist() == [
        ["(0,)", "(1, 2)", "(0, 1, 2)"],
        ["(3,)", "(3,)", "(3,)"],
        ["(0,)", "(1, 2, 3)", "()"],
    ]


def test_class_maps_follow_each_other():
    ours = LabelSet("ours", ("a", "b", "c"), ((0, 0, 0),) * 3)
    first = class_map_of(ours, FINE, {"a": "car", "b": ["bus", "grass"]}, "tests")
    both: ClassMap = first.then(class_map_of(FINE, COARSE, INSIDE, "tests"))
    assert both.answers == (0, 0, 255)
    assert both.others == ((), (1, 2), ())
    assert both.unlisted == ("c",)
    table, merged = target_table(ours, COARSE, both)
    assert sets(table[:4], merged, ours).tolist() == ["(0, 1)", "(1,)", "(1,)", "()"]


def test_a_class_map_brings_other_networks_to_both_kinds_of_labels(taught, tmp_path):
    """It is to the folder's own classes; from there `person.json` goes on."""
    root, path = taught(), tmp_path / "map.json"
    rule = {"from": {"name": "ours", "names": ["auto", "rest"]}, "to": FINE.to_dict()}
    path.write_text(json.dumps({**rule, "classes": {"auto": "car", "rest": None}}))
    dataset = open_dataset("folder", root, "train", class_map=path)
    ours = label_set_of(rule["from"], "tests")
    assert prediction_table(ours, COARSE, dataset.class_map)[:2].tolist() == [0, 255]
    assert dataset.teacher.class_map.target == FINE
    rule["to"] = COARSE.to_dict()
    path.write_text(json.dumps({**rule, "classes": {"auto": "vehicle", "rest": None}}))
    dataset = open_dataset("folder", root, "train", class_map=path)
    assert prediction_table(ours, COARSE, dataset.class_map)[:2].tolist() == [0, 255]
    rule["to"] = {"name": "other", "names": ["x"]}
    path.write_text(json.dumps({**rule, "classes": {"auto": "x", "rest": None}}))
    with pytest.raises(
        LabelSetError, match="labels of a network in 'fine' and of a person in 'coarse'"
    ):
        open_dataset("folder", root, "train", class_map=path)


def test_labels_of_a_teacher_alone_are_mapped_as_others_are(taught, tmp_path):
    path = tmp_path / "map.json"
    rule = {"from": FINE.to_dict(), "to": COARSE.to_dict(), "classes": INSIDE}
    path.write_text(json.dumps(rule))
    dataset = open_dataset("folder", taught(None), "train", class_map=path)
    assert dataset.label_set == dataset.own_classes == COARSE
    assert dataset[0].labels.tolist() == [[0, 0, 1, 1], [2, 255, 0, 0]]
    assert (
        dataset.teacher.labels(dataset.files[0][0], (2, 4)).tolist() == dataset[0].labels.tolist()
    )


def test_the_pages_example_is_whole(taught):
    """Each of CamVid's classes has one of Cityscapes' in it."""
    page = (Path(__file__).parents[2] / "docs/networks-and-data.md").read_text(encoding="utf-8")
    example = page.split("has a list of them.\n\n```json\n")[1].split("```")[0]
    root = taught()
    (root / "person.json").write_text(example)
    (root / "classes.json").write_text(json.dumps({"label_set": "cityscapes"}))
    class_map = open_dataset("folder", root, "train").class_map
    assert (class_map.source, class_map.target) == (CITYSCAPES, CAMVID)
    assert (class_map.unlisted, class_map.unanswered()) == ((), [])
    within = {n: class_map.within(i) for i, n in enumerate(CAMVID.names)}
    assert {CITYSCAPES.names[i] for i in within["car"]} == {"car", "truck", "bus"}
    assert {CITYSCAPES.names[i] for i in within["pavement"]} == {"sidewalk", "terrain"}


@pytest.mark.parametrize(
    ("share", "level"), [(0, 0), (1, 255), (0.2, 51), (0.6, 153), (140 / 255, 140), (0.5, 128)]
)
def test_the_least_value_that_reaches_a_share(share, level):
    assert least_level(share) == level
