"""A data set that code of the user's own opens, and what commands ask of any data set."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from icnet_deploy.data import open_dataset
from icnet_deploy.data.mapping import load_class_map
from icnet_deploy.data.options import add_data_options, open_data
from icnet_deploy.data.own.classes import classes_of
from icnet_deploy.errors import DatasetError, InputError, LabelSetError
from icnet_deploy.images import write_image, write_labels

PAGE = Path(__file__).parents[2] / "docs/networks-and-data.md"

WRONG = """
from icnet_deploy.errors import DatasetError
from icnet_deploy.data import open_dataset

def none(root, split):
    return [root]

def fails(root, split):
    return {}["val"]

def refuses(root, split):
    raise DatasetError("the disk is not mounted")

def leaves(root, split):
    raise SystemExit(3)

def empty(root, split):
    from dataclasses import replace
    from my_fields import open_fields
    return replace(open_fields(root, "val"), files=())
"""


@pytest.fixture
def fields(tmp_path, monkeypatch):
    """The code and the files of the example in the documentation."""
    code = re.search(r"```python\n(# my_fields\.py\n.*?)```", PAGE.read_text("utf-8"), re.S)
    assert len(code[1].splitlines()) <= 18
    (tmp_path / "my_fields.py").write_text(code[1])
    (tmp_path / "my_wrong.py").write_text(WRONG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("b", "a"):
        write_image(tmp_path / f"set/val/{name}.jpg", np.full((8, 12, 3), 90, np.uint8))
        mask = np.repeat(np.uint8([[0, 100, 200]]), 4, axis=1).repeat(8, axis=0)
        write_labels(tmp_path / f"set/val/{name}.mask.png", mask)
    yield tmp_path / "set"
    for name in ("my_fields", "my_wrong", "my_code"):
        sys.modules.pop(name, None)


def asked(*argv):
    parser = argparse.ArgumentParser()
    add_data_options(parser)
    return open_data(parser.parse_args([str(one) for one in argv]))


def test_the_documented_example_opens_a_data_set(fields):
    found = asked("--dataset", "my_fields:open_fields", "--data", fields)
    assert (found.name, found.split, found.label_set.names) == (
        *("fields", "val", ("soil", "crop", "weed")),
    )
    assert [sample.name for sample in found] == ["a", "b"]
    assert np.unique(found[0].labels).tolist() == [0, 1, 2]
    by_user = open_dataset("my_fields:open_fields", fields, exif="apply", group_by="^.")
    assert (by_user.groups(), by_user.exif) == (("a", "b"), "apply")
    assert by_user.grouping == "by what ^. finds in their names"
    assert found.first(1).groups() == ("val",)


@pytest.mark.parametrize(
    ("opener", "error", "message"),
    [
        ("my_wrong:none", InputError, r"returned list; expected a function of .*\.Dataset$"),
        (
            "my_wrong:fails",
            InputError,
            r"fails for .* 'val': KeyError: 'val' \(my_wrong\.py, line 9",
        ),
        ("my_wrong:leaves", InputError, r"fails for .*: SystemExit: 3 \(my_wrong\.py"),
        ("my_wrong:refuses", DatasetError, "^the disk is not mounted$"),
        ("my_wrong:empty", DatasetError, "found no image of the split 'val'"),
        (
            "my_wrong:absent",
            InputError,
            "--dataset my_wrong:absent: my_wrong has no absent; .*none",
        ),
        ("fields", DatasetError, "unknown data set 'fields'; known: .*PACKAGE.MODULE:OPENER"),
    ],
)
def test_own_code_that_opens_nothing_says_why(fields, opener, error, message):
    with pytest.raises(error, match=message):
        open_dataset(opener, fields)


def test_labels_that_own_code_reads_in_its_own_way_are_not_mapped(fields, tmp_path):
    (tmp_path / "my_code.py").write_text(
        "from dataclasses import fields\nfrom icnet_deploy.data import Dataset\n"
        "from my_fields import open_fields\n"
        "class Mine(Dataset):\n    def __getitem__(self, index):\n        return super()[index]\n"
        "def open_mine(root, split):\n"
        "    found = open_fields(root, split)\n"
        "    return Mine(**{f.name: getattr(found, f.name) for f in fields(found)})\n"
    )
    value = {"from": open_dataset("my_fields:open_fields", fields).label_set.to_dict()}
    (tmp_path / "map.json").write_text(json.dumps(value | {"to": "camvid", "classes": {}}))
    mapped = open_dataset("my_fields:open_fields", fields, class_map=tmp_path / "map.json")
    assert mapped.label_set.name == "camvid"
    with pytest.raises(LabelSetError, match="Mine reads its labels itself"):
        open_dataset("my_code:open_mine", fields, class_map=tmp_path / "map.json")


class TestLabelSet:
    """`--label-set` names a folder's classes, and a network's."""

    @pytest.fixture
    def folder(self, tmp_path):
        write_image(tmp_path / "images/val/a.png", np.full((8, 12, 3), 90, np.uint8))
        write_labels(tmp_path / "labels/val/a.png", np.zeros((8, 12), np.uint8))
        return tmp_path

    def test_it_names_those_of_a_folder_that_says_nothing(self, folder):
        found = asked("--dataset", "folder", "--data", folder, "--label-set", "camvid")
        assert found.label_set.name == "camvid"

    def test_a_folder_that_says_it_comes_first_and_that_is_told(self, folder, capsys):
        (folder / "classes.json").write_text('{"label_set": "voc"}')
        argv = ["--dataset", "folder", "--data", folder]
        assert asked(*argv, "--label-set", "camvid").label_set.name == "voc"
        said = capsys.readouterr().err
        assert said.startswith("note: --label-set camvid is not used, as ")
        asked(*argv, "--label-set", "voc")
        assert capsys.readouterr().err == ""

    def test_elsewhere_it_is_refused_unless_it_says_the_same(self, fields):
        argv = ["--dataset", "my_fields:open_fields", "--data", fields]
        with pytest.raises(
            InputError, match="my_fields:open_fields, whose classes are those of fields"
        ):
            asked(*argv, "--label-set", "camvid")


def test_the_documented_files_are_what_they_are_said_to_be(tmp_path):

    shown = re.findall(r"```json\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    (tmp_path / "classes.json").write_text(shown[0])
    classes = classes_of(tmp_path, None)
    assert (classes.ignored, classes.ignored_colours) == ((9,), ((0, 0, 0),))
    assert classes.group_by == "^(field[0-9]+)_"
    [rule] = [each for each in shown if '"from"' in each]
    class_map = json.loads(rule)
    five = {"name": "five", "names": ["road", "car", "building"]}
    (tmp_path / class_map["to"]).write_text(json.dumps(five))
    (tmp_path / "map.json").write_text(rule)
    assert str(load_class_map(tmp_path / "map.json")).startswith("road, sidewalk: road; ")


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        ("lambda path: 1 // 0", "my_code:opened fails for .*a.mask.png: ZeroDivisionError.*line 7"),
        ("lambda path: None", "a.mask.png are read as NoneType; expected uint8, height x width"),
        ("lambda path: read_mask(path) * 1.0", "are read as float64 8x12; expected uint8"),
        ("lambda path: read_mask(path)[..., None]", "are read as uint8 8x12x1; expected uint8"),
    ],
)
def test_what_a_reader_of_labels_does_wrong_is_told(fields, reader, message):
    (fields.parent / "my_code.py").write_text(
        "from dataclasses import replace\n"
        "from my_fields import open_fields, read_mask\n"
        "def opened(root, split):\n"
        "    return replace(\n"
        "        open_fields(root, split),\n"
        "        read_labels=\n"
        f"        {reader},\n"
        "    )\n"
    )
    with pytest.raises(DatasetError, match=message):
        open_dataset("my_code:opened", fields)[0]


def test_files_that_are_no_paths_are_told(fields):
    (fields.parent / "my_code.py").write_text(
        "from dataclasses import replace\n"
        "from my_fields import open_fields\n"
        "def opened(root, split):\n"
        "    found = open_fields(root, split)\n"
        "    return replace(found, files=tuple((str(a), b) for a, b in found.files))\n"
    )
    with pytest.raises(
        InputError, match=r"a data set with '.*a.jpg' in its files; expected pairs of pathlib.Path"
    ):
        open_dataset("my_code:opened", fields)
