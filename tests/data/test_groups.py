"""Which images belong together, as each reader knows it and as a user says it."""

from __future__ import annotations

import numpy as np
import pytest

from icnet_deploy.data import open_dataset
from icnet_deploy.data.dataset import listed
from icnet_deploy.data.scenes.dataset import drawn_scenes
from icnet_deploy.errors import InputError
from icnet_deploy.images import read_grey, write_image, write_labels
from icnet_deploy.labels import CITYSCAPES


def camvid(root, *names):
    for name in names:
        write_image(root / "val" / f"{name}.png", np.zeros((4, 12, 3), np.uint8))
        write_labels(root / "valannot" / f"{name}.png", np.zeros((4, 12), np.uint8))
    return root


def cityscapes(root, *names):
    for name in names:
        city = name.split("_")[0]
        image = root / "leftImg8bit/val" / city / f"{name}_leftImg8bit.png"
        write_image(image, np.zeros((4, 12, 3), np.uint8))
        label = root / "gtFine/val" / city / f"{name}_gtFine_labelIds.png"
        write_labels(label, np.zeros((4, 12), np.uint8))
    return root


def test_a_sequence_of_cityscapes_is_a_group(tmp_path):
    frames = ("frankfurt_000000_000294", "frankfurt_000001_000019", "frankfurt_000001_002512")
    root = cityscapes(tmp_path, *frames, "munster_000000_000019")
    dataset = open_dataset("cityscapes", root)
    groups = ("frankfurt_000000", "frankfurt_000001", "frankfurt_000001", "munster_000000")
    assert dataset.groups() == groups
    assert tuple(sample.group for sample in dataset) == groups
    assert dataset.first(2).groups() == (groups[0], groups[3])


def test_a_written_scene_is_a_group_and_so_is_a_drawn_one(tmp_path):
    root = cityscapes(tmp_path, "scenes_000000_000019", "scenes_000001_000019")
    assert len(set(open_dataset("scenes", root).groups())) == 2
    drawn = drawn_scenes(3, (64, 64))
    assert drawn.groups() == ("scene_000", "scene_001", "scene_002")
    assert drawn[1].group == "scene_001"


def test_a_drive_of_camvid_is_a_group(tmp_path):
    root = camvid(tmp_path, "0001TP_006690", "0016E5_07959", "0016E5_07961")
    assert open_dataset("camvid", root).groups() == ("0001TP", "0016E5", "0016E5")


def test_names_without_a_known_prefix_are_a_group_by_their_folder(tmp_path):
    """The fewest groups claim the least."""
    assert open_dataset("camvid", camvid(tmp_path, "a", "b")).groups() == ("val", "val")
    root = cityscapes(tmp_path / "c", "bonn_a", "bonn_b")
    assert set(open_dataset("cityscapes", root).groups()) == {"leftImg8bit/val/bonn"}


def test_a_reader_that_says_nothing_has_a_group_a_folder(tmp_path):
    files = [(tmp_path / f"{name}.png",) * 2 for name in ("a/1", "a/2", "b/1")]
    for file, _ in files:
        write_image(file, np.zeros((4, 12, 3), np.uint8))
    dataset = listed("own", tmp_path, "val", CITYSCAPES, files, read_grey, "FOLDER/NAME.png")
    assert dataset.groups() == ("a", "a", "b")


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        ("^[^_]+", ("0001TP", "0016E5", "0016E5")),
        ("^(....)[A-Z]", ("0001", "0016", "0016")),
        ("([0-9])[.]png$", ("0", "9", "1")),
        ("(x)?_0(0|7)", ("_00", "_07", "_07")),
        ("^([^/]+)/", ("val", "val", "val")),
    ],
)
def test_a_users_pattern_says_what_belongs_together(tmp_path, pattern, groups):
    root = camvid(tmp_path, "0001TP_006690", "0016E5_07959", "0016E5_07961")
    dataset = open_dataset("camvid", root, group_by=pattern)
    assert dataset.groups() == groups
    assert dataset[2].group == groups[2]
    assert dataset.grouping == f"by what {pattern} finds in their names"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", r"--group-by \( is not a regular expression.*expected e.g. "),
        ("^seq", r"--group-by \^seq finds nothing in a_1\.png; expected"),
        ("x*", r"finds nothing in a_1\.png"),
    ],
)
def test_a_pattern_that_does_not_fit_is_refused_when_the_set_is_opened(tmp_path, pattern, message):
    with pytest.raises(InputError, match=message):
        open_dataset("camvid", camvid(tmp_path, "a_1"), group_by=pattern)


def test_frames_whose_numbers_lack_zeros_follow_each_other_in_time(tmp_path):
    frames = [f"drive_{number}" for number in (2, 9, 10, 11, 100)]
    dataset = open_dataset("camvid", camvid(tmp_path, *frames))
    assert [sample.name for sample in dataset] == frames
