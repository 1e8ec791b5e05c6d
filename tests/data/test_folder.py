"""A folder of one's own: which files belong together, and what its labels mean."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import pytest
from PIL import Image
from reader_contract import SIZE, ReaderContract, noise

from icnet_deploy.data import open_dataset
from icnet_deploy.data.own.folder import BY_ITSELF
from icnet_deploy.errors import DatasetError, InputError, LabelSetError
from icnet_deploy.images import write_image, write_labels
from icnet_deploy.labels import CAMVID, CITYSCAPES, VOC, LabelSet

FARM = LabelSet("farm", ("soil", "crop", "weed"), ((90, 60, 30), (0, 160, 0), (200, 0, 0)))
WITH_IDS = LabelSet("farm", FARM.names, FARM.palette, (1, 2, 3))


def declare(root, label_set=FARM, **more):
    """Writes `classes.json`."""
    root.mkdir(parents=True, exist_ok=True)
    value = label_set if isinstance(label_set, str) else label_set.to_dict()
    (root / "classes.json").write_text(json.dumps({"label_set": value, **more}))


def add(root, name="a", labels=None, split="val", colours=False):
    """Writes an image and its labels: samples as they are, or colours."""
    write_image(root / "images" / split / f"{name}.png", noise(len(name)))
    labels = np.zeros(SIZE, np.uint8) if labels is None else np.asarray(labels, np.uint8)
    write = write_image if colours else write_labels
    path = root / "labels" / split / f"{name}.png"
    write(path, labels)
    return path


def row(*values):
    """A label map of the tests' size that begins with these values, and ends in the last."""
    return np.array([*values, *[values[-1]] * (SIZE[0] * SIZE[1] - len(values))]).reshape(SIZE)


def read(root, **options):
    """The first values of the first sample's labels."""
    return open_dataset("folder", root, **options)[0].labels.ravel()[:4].tolist()


class TestFolder(ReaderContract):
    name, label_set, layout = "folder", FARM, "images/SPLIT/ and labels/SPLIT/"

    def image_path(self, root, name, split):
        declare(root)
        return root / "images" / split / f"{name}.png"

    def labels_path(self, root, name, split):
        return root / "labels" / split / f"{name}.png"

    def write_labels(self, path, indices):
        write_labels(path, indices)


class TestFolderInColours(TestFolder):
    def image_path(self, root, name, split):
        declare(root, ignore=[[7, 8, 9]])
        return root / "images" / split / f"{name}.png"

    def write_labels(self, path, indices):
        colours = np.zeros((256, 3), np.uint8)
        colours[: len(FARM)], colours[255] = FARM.palette, (7, 8, 9)
        write_image(path, colours[indices])


class TestFolderWithIds(TestFolder):
    label_set = WITH_IDS

    def image_path(self, root, name, split):
        declare(root, WITH_IDS)
        return root / "images" / split / f"{name}.png"

    def write_labels(self, path, indices):
        write_labels(path, np.where(indices == 255, 0, indices + 1).astype(np.uint8))


class TestVOC(ReaderContract):
    name, label_set, layout = "voc", VOC, "JPEGImages/NAME.jpg, SegmentationClass/"

    def image_path(self, root, name, split):
        names = root / "VOCdevkit/VOC2012/ImageSets/Segmentation" / f"{split}.txt"
        names.parent.mkdir(parents=True, exist_ok=True)
        with names.open("a") as file:
            file.write(f"{name}\n")
        return root / "VOCdevkit/VOC2012/JPEGImages" / f"{name}.png"

    def labels_path(self, root, name, split):
        return root / "VOCdevkit/VOC2012/SegmentationClass" / f"{name}.png"

    def write_labels(self, path, indices):
        picture = Image.fromarray(indices, "P")
        picture.putpalette([v for colour in VOC.palette for v in colour])
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)

    def test_an_empty_folder_is_refused_with_the_expected_layout(self, tmp_path):
        """Its list names an image that is not there."""
        image, _ = self.write(tmp_path)
        image.unlink()
        with pytest.raises(
            DatasetError, match=r"val\.txt names a, which has no image in JPEGImages"
        ):
            open_dataset("voc", tmp_path)
        with pytest.raises(DatasetError, match=f"expected {self.layout}.*has the lists val"):
            open_dataset("voc", tmp_path, "test")

    def test_the_development_kit_and_the_year_are_roots_too(self, tmp_path):
        self.write(tmp_path)
        for below in ("VOCdevkit", "VOCdevkit/VOC2012"):
            assert len(open_dataset("voc", tmp_path / below)) == 1
            assert open_dataset("voc", tmp_path / below).grouping == BY_ITSELF
        other = tmp_path / "VOCdevkit/VOC2007/ImageSets/Segmentation"
        other.mkdir(parents=True)
        with pytest.raises(DatasetError, match="holds 2 data sets, VOC2007, VOC2012: name the"):
            open_dataset("voc", tmp_path)


class TestVOCInColours(TestVOC):
    def write_labels(self, path, indices):
        colours = np.zeros((256, 3), np.uint8)
        colours[: len(VOC)], colours[255] = VOC.palette, (224, 224, 192)
        write_image(path, colours[indices])


def test_an_image_and_its_labels_have_one_path_but_for_the_suffix(tmp_path):
    declare(tmp_path)
    add(tmp_path, "field 7/ä/a.1")
    add(tmp_path, "field 8/ä/a.1", row(2))
    photo = tmp_path / "images/val/field 8/ä/a.1.png"
    Image.fromarray(noise()).save(photo.with_suffix(".JPG"), "JPEG")
    photo.unlink()
    found = open_dataset("folder", tmp_path)
    assert [sample.name for sample in found] == ["field 7/ä/a.1", "field 8/ä/a.1"]
    assert [sample.labels[0, 0] for sample in found] == [0, 2]


def test_a_name_of_another_system_is_the_same_name(tmp_path):
    declare(tmp_path)
    name = unicodedata.normalize("NFC", "ä")
    labels = add(tmp_path, name)
    labels.rename(labels.with_name(unicodedata.normalize("NFD", "ä") + ".png"))
    assert len(open_dataset("folder", tmp_path)) == 1


def test_linked_folders_are_searched(tmp_path):
    add(tmp_path / "disk", "a")
    declare(tmp_path / "set")
    for kind in ("images", "labels"):
        (tmp_path / "set" / kind).mkdir()
        (tmp_path / "set" / kind / "val").symlink_to(tmp_path / "disk" / kind / "val")
    assert [one.name for one in open_dataset("folder", tmp_path / "set")] == ["a"]


def test_what_has_one_name_twice_or_leads_nowhere_is_refused(tmp_path):
    declare(tmp_path)
    labels = add(tmp_path)
    labels.with_suffix(".bmp").write_bytes(b"")
    with pytest.raises(
        DatasetError, match=r"val/a\.png and a\.bmp have the same name: give each its own"
    ):
        open_dataset("folder", tmp_path)
    labels.with_suffix(".bmp").unlink()
    (tmp_path / "images/val/b.png").symlink_to(tmp_path / "none.png")
    with pytest.raises(DatasetError, match=r"val/b\.png is a link to a file that is not there$"):
        open_dataset("folder", tmp_path)


def test_the_splits_that_are_there_are_named(tmp_path):
    declare(tmp_path)
    add(tmp_path, split="train")
    add(tmp_path, split="test")
    with pytest.raises(DatasetError, match=r"'val'; expected images/.*has the splits test, train"):
        open_dataset("folder", tmp_path)


class TestClasses:
    def test_a_palettes_indices_are_the_classes_whatever_its_colours(self, tmp_path):
        declare(tmp_path)
        path = add(tmp_path)
        picture = Image.fromarray(row(2, 1, 0, 255).astype(np.uint8), "P")
        picture.putpalette([5, 5, 5] * 256)
        picture.save(path)
        assert read(tmp_path) == [2, 1, 0, 255]

    def test_sixteen_bits_and_files_of_unlike_kinds_are_read(self, tmp_path):
        declare(tmp_path)
        Image.fromarray(row(2, 1).astype(np.uint16)).save(add(tmp_path, "a"))
        colours = np.array(FARM.palette, np.uint8)[row(0, 2)]
        add(tmp_path, "b", colours, colours=True)
        found = open_dataset("folder", tmp_path)
        assert [sample.labels.ravel()[:2].tolist() for sample in found] == [[2, 1], [0, 2]]

    def test_what_is_ignored_is_said_by_value_and_by_colour(self, tmp_path):
        declare(tmp_path, ignore=[7, 9, [1, 2, 3]])
        add(tmp_path, "a", row(0, 7, 9, 255))
        add(tmp_path, "b", np.array([*FARM.palette, (1, 2, 3)])[row(1, 3)], colours=True)
        found = open_dataset("folder", tmp_path)
        assert found[0].labels.ravel()[:4].tolist() == [0, 255, 255, 255]
        assert found[1].labels.ravel()[:2].tolist() == [1, 255]

    def test_ids_are_usual_for_a_set_of_ones_own_that_has_them(self, tmp_path):
        """As ADE20K's: 0 is ignored, 1 is the first class."""
        add(tmp_path, labels=row(0, 1, 3, 255))
        assert read(tmp_path, label_set=WITH_IDS) == [255, 0, 2, 255]
        declare(tmp_path, WITH_IDS)
        assert read(tmp_path) == [255, 0, 2, 255]
        with pytest.raises(DatasetError, match=r"the value 3 \(1 pixel\); expected an index"):
            read(tmp_path, label_values="indices")
        declare(tmp_path, WITH_IDS, label_values="indices")
        with pytest.raises(DatasetError, match="if these are label ids, give --label-values ids"):
            read(tmp_path)

    def test_indices_are_usual_for_a_set_that_is_known_by_name(self, tmp_path):
        add(tmp_path, labels=row(0, 18))
        assert read(tmp_path, label_set="cityscapes") == [0, 18, 18, 18]
        add(tmp_path, labels=row(7, 33, 0))
        assert read(tmp_path, label_set=CITYSCAPES, label_values="ids")[:3] == [0, 18, 255]
        declare(tmp_path, "cityscapes", label_values="ids")
        assert read(tmp_path)[:3] == [0, 18, 255]
        declare(tmp_path, CITYSCAPES)  # written out, it is a set of one's own
        assert read(tmp_path)[:3] == [0, 18, 255]

    def test_the_folders_own_classes_come_before_those_that_are_named(self, tmp_path):
        add(tmp_path, labels=row(2))
        with pytest.raises(InputError, match=r"write .*classes\.json, e\.g\. \{.*--label-set"):
            read(tmp_path)
        assert open_dataset("folder", tmp_path, label_set="camvid").label_set == CAMVID
        declare(tmp_path)
        assert open_dataset("folder", tmp_path, label_set="camvid").label_set == FARM

    def test_a_named_file_may_be_a_label_set_or_a_classes_json(self, tmp_path):
        add(tmp_path / "set", labels=row(2, 7))
        declare(tmp_path / "other", ignore=[7])
        other = tmp_path / "other/classes.json"
        assert read(tmp_path / "set", label_set=other) == [2, 255, 255, 255]
        other.write_text(json.dumps(FARM.to_dict()))
        with pytest.raises(DatasetError, match="the value 7"):
            read(tmp_path / "set", label_set=str(other))

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (row(3, 3, 1), r"a\.png holds the value 3 \(2 pixels\); expected an index of farm, 0 "),
            (row(1, 2, 3), 'if its values are 1 too large .* "label_ids" 1, 2, .*values ids'),
            (row(9, 7, 7, 0), r"values 7 \(2 pixels\), 9 \(1 pixel\).*list it under \"ignore\" in"),
        ],
    )
    def test_a_value_that_no_class_has_is_named_with_the_likely_slip(
        self, tmp_path, labels, message
    ):
        declare(tmp_path)
        add(tmp_path, labels=labels)
        with pytest.raises(DatasetError, match=message):
            read(tmp_path)

    def test_an_id_that_no_class_has_is_named_with_the_likely_slip(self, tmp_path):
        declare(tmp_path, WITH_IDS)
        add(tmp_path, labels=row(1, 9))
        with pytest.raises(DatasetError, match=r"a label id of farm \(1 to 3\): list it under"):
            read(tmp_path)
        declare(tmp_path, "cityscapes", label_values="ids")
        add(tmp_path, labels=row(0, 4, 18))
        with pytest.raises(DatasetError, match=r"7, 8, 11, 12, 13, 17, \.\.\.\): if these are ind"):
            read(tmp_path)

    @pytest.mark.parametrize(
        ("colours", "message"),
        [
            (
                [(1, 2, 3)],
                r"a\.png holds the colour \[1, 2, 3\] \(48 pixels\); no class of farm.*ig",
            ),
            ([(0, 0, 0), (2, 2, 2)], "if these are class indices, write them in one channel"),
            (noise(3).reshape(-1, 3), "and 43 others; .*lossy format, smooth edges or a resize"),
        ],
    )
    def test_a_colour_that_no_class_has_is_named_with_the_likely_slip(
        self, tmp_path, colours, message
    ):
        declare(tmp_path)
        picture = np.resize(np.array(colours, np.uint8), (*SIZE, 3))
        add(tmp_path, labels=picture, colours=True)
        with pytest.raises(DatasetError, match=message):
            read(tmp_path)

    @pytest.mark.parametrize(
        ("label_set", "more", "message"),
        [
            (FARM, {"ignore": [1]}, "the value 1, which `ignore` lists, is also the class crop"),
            (FARM, {"ignore": [[0, 160, 0]]}, r"\[0, 160, 0\], which `ignore` lists, .* crop"),
            (FARM, {"ignore": [[0, 160]]}, "ignore is .*expected a list"),
            (FARM, {"ignore": [256]}, "ignore is .*expected a list"),
            (FARM, {"label_values": "ids"}, "'farm' has no label_ids: add one"),
            (FARM, {"group-by": "x"}, "it holds group-by; known: group_by"),
            ("farm", {}, "names the label set 'farm'; expected cityscapes"),
            (
                LabelSet("x", ("a", "b"), ((0, 0, 0), (1, 1, 1)), (3, 3)),
                {},
                "two classes have the same",
            ),
            (LabelSet("x", ("a",), ((0, 0, 0),), (255,)), {}, "255, which is always ignored, is"),
        ],
    )
    def test_what_contradicts_itself_is_refused(self, tmp_path, label_set, more, message):
        declare(tmp_path, label_set, **more)
        add(tmp_path)
        with pytest.raises((DatasetError, LabelSetError), match=message):
            open_dataset("folder", tmp_path)

    def test_two_classes_of_one_colour_can_be_told_apart_by_values_only(self, tmp_path):
        declare(tmp_path, LabelSet("x", ("a", "b"), ((9, 9, 9), (9, 9, 9))))
        add(tmp_path, labels=row(1))
        assert read(tmp_path)[0] == 1
        add(tmp_path, labels=np.full((*SIZE, 3), 9), colours=True)
        with pytest.raises(DatasetError, match="a and b have the same colour"):
            read(tmp_path)

    def test_label_values_are_a_folders(self, tmp_path):
        with pytest.raises(DatasetError, match="--label-values ids is for --dataset folder"):
            open_dataset("camvid", tmp_path, label_values="ids")


def test_each_image_is_a_group_unless_something_says_otherwise(tmp_path):
    declare(tmp_path)
    for name in ("p1_a", "p1_b", "p2_a"):
        add(tmp_path, name)
    alone = open_dataset("folder", tmp_path)
    assert (len(set(alone.groups())), alone.grouping) == (3, BY_ITSELF)
    declare(tmp_path, group_by="^(p[0-9])_")
    own = open_dataset("folder", tmp_path)
    assert (own.groups(), own.grouping) == (
        ("p1", "p1", "p2"),
        "by what ^(p[0-9])_ finds in their names",
    )
    asked = open_dataset("folder", tmp_path, group_by="_(.)")
    assert (asked.groups(), asked.grouping) == (
        ("a", "b", "a"),
        "by what _(.) finds in their names",
    )
    declare(tmp_path, group_by="^q")
    with pytest.raises(InputError, match=r"the group_by of classes\.json, \^q finds nothing in p1"):
        open_dataset("folder", tmp_path)
