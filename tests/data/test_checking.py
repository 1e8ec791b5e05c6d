"""`icnet dataset check`: what it counts, and all that it finds wrong at once."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image
from report_page import check_page

from icnet_deploy.cli import main
from icnet_deploy.images import write_image, write_labels
from icnet_deploy.labels import VOC, LabelSet

SIZE = (8, 12)
FARM = LabelSet("farm", ("soil", "crop", "weed"), ((90, 60, 30), (0, 160, 0), (200, 0, 0)))


def noise(seed, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def add(root, split, name, labels, seed=None, size=SIZE):
    """An image, and labels of one value or of this map."""
    seed = hash((split, name)) % 1000 if seed is None else seed
    write_image(root / "images" / split / f"{name}.png", noise(seed, size))
    labels = np.asarray(labels, np.uint8)
    labels = np.full(size, labels) if labels.ndim == 0 else labels
    write_labels(root / "labels" / split / f"{name}.png", labels)


@pytest.fixture
def farm(tmp_path):
    """Two splits in which nothing is wrong: soil above, crop or weed below."""
    root = tmp_path / "farm"
    for number, (split, name) in enumerate((("train", "a"), ("train", "b/c"), ("val", "d"))):
        labels = np.zeros(SIZE, np.uint8)
        labels[4:], labels[0, :3] = 1 + number % 2, 255
        add(root, split, name, labels, seed=number)
    (root / "classes.json").write_text(json.dumps({"label_set": FARM.to_dict()}))
    return root


@pytest.fixture
def check(tmp_path, capsys):
    """Runs the command; gives its exit code, its JSON, stdout and stderr."""

    def run(root, *argv, name="folder"):
        out = tmp_path / "check.json"
        out.unlink(missing_ok=True)
        argv = ["dataset", "check", root, "--dataset", name, "--json", out, *argv]
        code = main([str(one) for one in argv])
        text, err = capsys.readouterr()
        return code, json.loads(out.read_text()) if out.exists() else None, text, err

    return run


def test_it_counts_images_sizes_groups_and_pixels(farm, check, tmp_path):
    code, found, text, _ = check(farm, "--report", tmp_path / "check.html")
    assert code == 0
    assert (found["label_set"], found["problems"]) == ("farm", [])
    train, val = found["splits"]["train"], found["splits"]["val"]
    assert (train["images"], train["groups"], train["sizes"]) == (2, 2, {"8x12": 2})
    assert train["grouping"] == val["grouping"] == "each image by itself"
    assert train["ignored_percent"] == pytest.approx(100 * 3 / 96, abs=1e-5)
    crop = {"pixels": 48, "percent": pytest.approx(100 * 48 / 186, abs=1e-5), "images": 1}
    assert train["classes"]["crop"] == crop
    assert val["classes"]["weed"] == {"pixels": 0, "percent": 0, "images": 0}
    assert val["notes"] == ["val has no pixel of weed"]
    assert "farm: folder, 3 classes of farm" in text
    assert "groups: each image by itself" in text
    assert "notes (1):\n- val has no pixel of weed" in text
    page = check_page((tmp_path / "check.html").read_text())
    bars = [a for name, a in page.elements if name == "rect" and a["class"] in ("first", "second")]
    assert len(bars) == 2 + 2 * 3
    assert any("weed, train: 25.806 %" in words for words in page.text)


def test_it_says_all_that_is_wrong_at_once(farm, check):
    for name in ("lost", "other", "value", "broken", "twin"):
        add(farm, "val", name, 1)
    add(farm, "val", "twin", 1, seed=0)
    (farm / "labels/val/lost.png").unlink()
    write_labels(farm / "labels/val/other.png", np.zeros((8, 11), np.uint8))
    write_labels(farm / "labels/val/value.png", np.full(SIZE, 7, np.uint8))
    (farm / "images/val/broken.png").write_bytes(b"none")
    write_labels(farm / "labels/val/stray.png", np.zeros(SIZE, np.uint8))
    (farm / "images/val/link.png").symlink_to(farm / "none.png")
    (farm / "labels/test").mkdir()
    code, found, text, err = check(farm)
    assert code == 1
    words = "\n".join(found["problems"])
    for said in (
        "lost.png has no labels: ",
        "other.png is 8x11, its image other.png is 8x12",
        "value.png holds the value 7 (96 pixels); expected an index of farm, 0 to 2",
        "broken.png is not an image",
        "stray.png has no image: add it, or remove the file",
        "link.png is a link to a file that is not there",
        "val/twin shows the same as train/a: a network trained on one of these splits",
        "holds no folder images of the split 'test'",
    ):
        assert said in words
    assert len(found["problems"]) == 8
    assert found["splits"]["val"]["images"] == 2
    assert "problems (8):" in text
    assert "farm has 8 problems; first: " in err


def test_it_shows_the_files_to_look_at(farm, check):
    for number in range(7):
        blank = np.full(SIZE, 255, np.uint8)
        blank[: 6 - number // 2, :6] = 0
        add(farm, "train", f"blank{number}", blank)
    add(farm, "train", "large", 2, size=(16, 12))
    code, found, text, _ = check(farm, "--split", "train")
    assert code == 0
    look = found["splits"]["train"]["look_at"]
    assert [one["name"] for one in look["most ignored"]] == [
        *("blank6", "blank4", "blank5", "blank2", "blank3", "..."),
    ]
    assert look["most ignored"][0]["what"] == "81.2 % ignored"
    assert look["most ignored"][5]["what"] == "2 more"
    assert {"name": "large", "what": "weed"} in look["one class only"] or (
        look["one class only"][5]["what"] == "3 more"
    )
    assert look["not 8x12"] == [{"name": "large", "what": "16x12"}]
    assert "train/blank6  most ignored" in text


def test_an_image_that_is_twice_in_a_split_is_worth_to_know(farm, check):
    add(farm, "train", "again", 1, seed=0)
    code, found, _, _ = check(farm)
    assert (code, found["problems"]) == (0, [])
    assert "train/again shows the same as train/a" in found["splits"]["train"]["notes"]


def test_a_palette_of_which_the_colours_say_something_else_is_worth_to_know(farm, check):
    """A tool that makes files smaller may number a palette anew."""
    path = farm / "labels/train/a.png"
    with Image.open(path) as stored:
        picture = Image.fromarray(np.array(stored), "P")
    rest = [7] * (3 * 253)
    picture.putpalette([*(v for colour in FARM.palette for v in colour), *rest])
    picture.save(path)
    assert check(farm)[1]["splits"]["train"]["notes"] == []
    picture.putpalette([*(v for index in (1, 0, 2) for v in FARM.palette[index]), *rest])
    picture.save(path)
    notes = check(farm)[1]["splits"]["train"]["notes"]
    assert len(notes) == 1
    assert "a.png: its palette draws soil in the colour of crop" in notes[0]


def test_masks_in_black_and_white_are_worth_to_know(farm, check):
    for split, name in (("train", "a"), ("train", "b/c"), ("val", "d")):
        add(farm, split, name, np.where(np.arange(96).reshape(SIZE) < 40, 0, 255))
    notes = check(farm, "--split", "val")[1]["splits"]["val"]["notes"]
    assert (
        "val shows only soil, and all other pixels are ignored: if the masks are black and white"
        in notes[1]
    )


def test_other_layouts_are_checked_too(check, tmp_path, scenes):
    code, found, _, _ = check(scenes, "--split", "val", name="scenes")
    assert (code, found["splits"]["val"]["images"], found["label_set"]) == (0, 3, "cityscapes")
    code, found, _, _ = check(scenes, name="scenes")
    assert (code, list(found["splits"])) == (0, ["val"])
    root = tmp_path / "VOC2012"
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    for split in ("val", "trainval"):
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("a\nb\nc\n")
    write_image(root / "JPEGImages/a.png", noise(1))
    write_image(root / "JPEGImages/b.png", noise(2))
    write_labels(root / "SegmentationClass/a.png", np.full(SIZE, len(VOC) - 1, np.uint8))
    code, found, _, _ = check(root, name="voc")
    assert (code, len(found["problems"]), found["splits"]["val"]["images"]) == (1, 2, 1)
    assert list(found["splits"]) == ["val"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("none",), "the data set's folder none does not exist"),
        (("{farm}", "--split", "night"), "images of the split 'night'.*has the splits train, val"),
        (("{farm}", "--dataset", "coco"), "unknown data set 'coco'"),
        (("{farm}", "--dataset", "camvid"), "holds no camvid images of the split 'train'"),
        (("{farm}", "--group-by", "^x"), "--group-by .x finds nothing in"),
        (("{farm}/images",), "the classes of .* are not known"),
    ],
)
def test_a_wrong_request_ends_with_2(farm, capsys, argv, message):
    assert main(["dataset", "check", *(one.format(farm=farm) for one in argv)]) == 2
    text, err = capsys.readouterr()
    assert text == ""
    assert re.search(message, err)


def test_the_command_says_what_it_knows(capsys):
    assert main(["dataset"]) == 2
    assert (
        "icnet dataset needs a command: check, e.g. icnet dataset check" in capsys.readouterr().err
    )
    assert main(["dataset", "--help"]) == 0
    assert capsys.readouterr().out.count("icnet dataset check fields") == 1
    assert main(["dataset", "look"]) == 2
    assert "icnet dataset has no command 'look'; known: check" in capsys.readouterr().err


def test_a_label_set_that_nothing_takes_is_said(farm, check):
    code, _, _, err = check(farm, "--label-set", "camvid")
    assert (code, "--label-set camvid is not used" in err) == (0, True)


def test_no_rule_of_groups_is_told_where_no_image_can_be_read(farm, check):
    for labels in farm.glob("labels/**/*.png"):
        labels.unlink()
    code, _, text, _ = check(farm)
    assert code == 1
    assert "groups:" not in text


def test_a_folder_that_is_not_searched_is_called_one(farm, check):
    (farm / "images/train/.thumbs").mkdir()
    (farm / "images/train/notes.txt").write_text("x")
    _, found, _, _ = check(farm)
    folder, file = found["splits"]["train"]["notes"]
    assert "/.thumbs is left out: the folder is hidden, cannot be read, or is a link to a" in folder
    assert file.endswith("/notes.txt is left out: it is not an image")
