"""Label sets: the known ones, a user's own, and what is refused."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icnet_deploy.errors import BackendError, LabelSetError, NotFinite
from icnet_deploy.labels import (
    CAMVID,
    CITYSCAPES,
    LABEL_SETS,
    VOC,
    LabelSet,
    check_labels,
    load_label_set,
)

# trainId, labelId, name, colour: from the data set's own table of labels.
CITYSCAPES_TABLE = """
0 7 road 128 64 128
1 8 sidewalk 244 35 232
2 11 building 70 70 70
3 12 wall 102 102 156
4 13 fence 190 153 153
5 17 pole 153 153 153
6 19 traffic_light 250 170 30
7 20 traffic_sign 220 220 0
8 21 vegetation 107 142 35
9 22 terrain 152 251 152
10 23 sky 70 130 180
11 24 person 220 20 60
12 25 rider 255 0 0
13 26 car 0 0 142
14 27 truck 0 0 70
15 28 bus 0 60 100
16 31 train 0 80 100
17 32 motorcycle 0 0 230
18 33 bicycle 119 11 32
"""

GOOD = {"name": "own", "names": ["a", "b"], "palette": [[1, 2, 3], [4, 5, 6]]}


def test_cityscapes_is_the_table_of_its_authors():
    for line in CITYSCAPES_TABLE.split("\n")[1:-1]:
        train_id, label_id, name, *colour = line.split()
        index = int(train_id)
        assert CITYSCAPES.names[index] == name.replace("_", " ")
        assert CITYSCAPES.label_ids[index] == int(label_id)
        assert CITYSCAPES.palette[index] == tuple(int(v) for v in colour)
    assert len(CITYSCAPES) == 19


def test_camvid_has_its_11_classes_in_order():
    assert CAMVID.names == (
        "sky", "building", "pole", "road", "pavement", "tree",
        "sign/symbol", "fence", "car", "pedestrian", "bicyclist",
    )  # fmt: skip
    assert CAMVID.palette[CAMVID.names.index("road")] == (128, 64, 128)
    assert CAMVID.palette[CAMVID.names.index("bicyclist")] == (0, 128, 192)
    assert CAMVID.label_ids is None


def test_known_sets_are_found_by_their_names():
    assert LABEL_SETS == {"cityscapes": CITYSCAPES, "camvid": CAMVID, "voc": VOC}


def test_voc_has_its_21_classes_and_the_colours_of_its_palette():
    assert (len(VOC), VOC.names[0], VOC.names[15], VOC.names[20]) == (
        *(21, "background", "person", "tvmonitor"),
    )
    assert VOC.palette[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert (VOC.palette[15], VOC.palette[20]) == ((192, 128, 128), (0, 64, 128))


def test_a_file_may_leave_out_the_colours_and_may_be_a_classes_json(tmp_path):
    path = tmp_path / "own.json"
    inner = {"name": "own", "names": ["a", "b"]}
    path.write_text(json.dumps(inner))
    own = load_label_set(path)
    assert own == LabelSet("own", ("a", "b"), VOC.palette[:2])
    path.write_text(json.dumps({"label_set": inner, "ignore": [7]}))
    assert load_label_set(path) == own
    path.write_text(json.dumps({"label_set": "camvid"}))
    assert load_label_set(path) == CAMVID
    path.write_text(json.dumps({"label_set": "own"}))
    with pytest.raises(
        LabelSetError, match=r"own\.json names the label set 'own'; expected cityscap"
    ):
        load_label_set(path)


def test_the_table_to_label_ids_covers_every_byte():
    table = CITYSCAPES.train_to_label_ids()
    assert len(table) == 256
    assert table[0] == 7
    assert table[18] == 33
    assert set(table[19:]) == {0}


def test_without_label_ids_classes_are_written_as_they_are():
    assert CAMVID.train_to_label_ids() == bytes(range(11)) + bytes(245)


@pytest.mark.parametrize("label_set", [CITYSCAPES, CAMVID])
def test_a_set_survives_its_json_form(label_set, tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(label_set.to_dict()), encoding="utf-8")
    assert load_label_set(path) == label_set


colours = st.tuples(*[st.integers(0, 255)] * 3)

names = st.text(min_size=1, max_size=5).filter(str.isprintable)
classes = st.tuples(names, colours, st.integers(0, 255))


@settings(deadline=None, max_examples=30)
@given(st.lists(classes, min_size=1, max_size=5, unique_by=lambda row: row[0]), st.booleans())
def test_every_sound_set_survives_its_json_form(rows, with_ids):
    names, palette, ids = zip(*rows, strict=True)
    label_set = LabelSet("own", names, palette, ids if with_ids else None)
    assert LabelSet.from_dict(json.loads(json.dumps(label_set.to_dict()))) == label_set
    assert len(label_set.train_to_label_ids()) == 256


def test_the_largest_set_has_254_classes():
    names = [str(i) for i in range(254)]
    assert len(LabelSet.from_dict({"name": "x", "names": names, "palette": [[0, 0, 0]] * 254}))
    with pytest.raises(LabelSetError, match="255 classes"):
        LabelSet.from_dict({"name": "x", "names": [*names, "y"], "palette": [[0, 0, 0]] * 255})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"names": []}, "0 classes"),
        ({"names": ["a", "a"]}, "twice"),
        ({"names": ["a"]}, "1 names but 2 colours"),
        ({"palette": [[1, 2, 3]]}, "2 names but 1 colours"),
        ({"palette": [[1, 2], [3, 4]]}, "red, green, blue"),
        ({"palette": [[1, 2, 3], [0, 0, 256]]}, "three numbers in 0..255"),
        ({"palette": [[1, 2, 3], [0, 0, -1]]}, "three numbers in 0..255"),
        ({"palette": [[0.5, 0.5, 0.5], [1, 1, 1]]}, "red, green, blue"),
        ({"palette": [[1, 2, 3], "red"]}, "red, green, blue"),
        ({"palette": None}, "red, green, blue"),
        ({"label_ids": [1]}, "2 names but 1 label ids"),
        ({"label_ids": [1, 300]}, "outside 0..255"),
        ({"label_ids": [-1, 2]}, "outside 0..255"),
        ({"label_ids": [1, "two"]}, "label_ids"),
    ],
)
def test_a_set_that_contradicts_itself_is_refused(change, words):
    with pytest.raises(LabelSetError, match=words):
        LabelSet.from_dict(GOOD | change)


@pytest.mark.parametrize("field", ["name", "names", "palette"])
def test_a_missing_field_is_named(field):
    with pytest.raises(LabelSetError, match=repr(field)):
        LabelSet.from_dict({k: v for k, v in GOOD.items() if k != field})


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"null", b'"text"', b"\xff\xfe\x00"])
def test_a_file_that_is_no_label_set_is_refused(content, tmp_path):
    path = tmp_path / "labels.json"
    path.write_bytes(content)
    with pytest.raises(LabelSetError, match=r"labels\.json"):
        load_label_set(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(LabelSetError, match=r"cannot read .*expected a label set"):
            load_label_set(path)


@pytest.mark.parametrize("label_set", LABEL_SETS.values(), ids=LABEL_SETS)
def test_a_label_map_holds_classes_and_nothing_else(label_set):
    labels = np.arange(len(label_set), dtype=np.uint8).reshape(1, -1)
    check_labels(labels, label_set)
    check_labels(labels[:, :0], label_set)
    for value in range(len(label_set), 255):
        labels[0, -1] = value
        with pytest.raises(BackendError, match=f"holds {value}, .* 0 to {len(label_set) - 1}"):
            check_labels(labels, label_set)


def test_255_in_a_label_map_says_what_the_logits_do():
    with pytest.raises(NotFinite) as from_labels:
        check_labels(np.array([0, 255, 19], np.uint8), CITYSCAPES)
    assert str(from_labels.value) == str(NotFinite())
    assert isinstance(from_labels.value, BackendError)
    assert isinstance(from_labels.value, ValueError)


UNPRINTABLE = ["", "\ud800", "a\nb", "\x00", "bell\x07", "\u202egnp.exe", "road" * 51, "x" * 2**20]


@pytest.mark.parametrize("name", UNPRINTABLE, ids=[ascii(name[:9]) for name in UNPRINTABLE])
def test_a_name_that_no_picture_can_show_is_refused(name, tmp_path):
    for value in ({**GOOD, "name": name}, {**GOOD, "names": ["a", name]}):
        with pytest.raises(LabelSetError, match="characters that can be printed") as error:
            LabelSet.from_dict(value)
        assert len(str(error.value)) < 250
        str(error.value).encode()
        path = tmp_path / "own.json"
        path.write_text(json.dumps(value))
        with pytest.raises(LabelSetError, match=r"characters that can be printed|half a character"):
            load_label_set(path)


@pytest.mark.parametrize(
    ("names", "palette", "ids"),
    [
        ((1, 2), ((1, 2, 3), (4, 5, 6)), None),
        (("a", None), ((1, 2, 3), (4, 5, 6)), None),
        (("a", "b"), ((1, 2, 3), ("x", 5, 6)), None),
        (("a", "b"), ((1, 2, 3), (4.5, 5, 6)), None),
        (("a", "b"), ((1, 2, 3), (float("nan"), 5, 6)), None),
        (("a", "b"), ((1, 2, 3), (4, 5, 6)), ("0", "1")),
        (("a", "b"), (1, 2), None),
        (None, ((1, 2, 3),), None),
        (("a", "b"), None, None),
    ],
)
def test_a_set_of_other_types_is_refused(names, palette, ids):
    with pytest.raises(LabelSetError):
        LabelSet("own", names, palette, ids)


def test_names_of_other_scripts_are_names():
    names = ("route", "\u6b69\u9053", "Stra\u00dfe & Weg", "road" * 50)
    assert LabelSet("\u9053\u8def", names, ((0, 0, 0),) * 4).names == names
