"""A folder of photos without labels, in the place of a data set."""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from icnet_deploy.data import content_hash
from icnet_deploy.data.options import add_data_options, open_data
from icnet_deploy.data.photos import photos
from icnet_deploy.errors import DatasetError, ImageError, InputError
from icnet_deploy.images import write_image
from icnet_deploy.labels import CAMVID


def noise(seed=0, size=(4, 12)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Two drives, frames of unlike lengths of number, one photo beside them, and no photo."""
    for seed, name in enumerate(("a/frame10", "a/frame2", "b/1", "top")):
        write_image(tmp_path / "trip" / f"{name}.png", noise(seed))
    (tmp_path / "trip/notes.txt").write_text("of the trip")
    return tmp_path / "trip"


def asked(*argv):
    parser = argparse.ArgumentParser()
    add_data_options(parser, images=True)
    return open_data(parser.parse_args([str(one) for one in argv]))


def test_photos_are_named_by_their_paths_and_follow_each_other_in_time(folder):
    found = photos(folder)
    assert (found.name, found.split, found.labelled) == ("photos", "trip", False)
    assert [one.name for one in found] == ["a/frame2.png", "a/frame10.png", "b/1.png", "top.png"]
    assert found.groups() == tuple(one.group for one in found) == ("a", "a", "b", ".")
    sample = found[2]
    assert np.array_equal(sample.image, noise(2))
    assert sample.labels.dtype == np.uint8
    assert sample.labels.shape == (4, 12)
    assert (sample.labels == 255).all()


def test_what_predict_wrote_is_no_photo(folder, capsys):
    out = folder / "a/out"
    for name in ("x_labels.png", "sub/x_overlay.jpg", "seen.png"):
        write_image(out / name, noise())
    (out / "predictions.jsonl").write_text('{"schema": 1}')
    names = [one.name for one in asked("--images", folder)]
    assert "a/out/seen.png" in names
    assert not [name for name in names if "x_" in name]
    said = f"note: {folder}: 2 images are left out, which `icnet predict` wrote there"
    assert said in capsys.readouterr().err
    (out / "seen.png").unlink()
    with pytest.raises(DatasetError, match="holds only images that `icnet predict` wrote"):
        asked("--images", out)


def test_photos_take_a_models_classes_and_stay_photos(folder):
    found = replace(photos(folder), label_set=CAMVID).first(2)
    assert (found.label_set, found.labelled) == (CAMVID, False)
    assert [one.name for one in found] == ["a/frame2.png", "top.png"]


def test_a_photo_is_turned_and_known_either_way(tmp_path):
    stored, exif = noise(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    sample = photos(tmp_path)[0]
    assert np.array_equal(sample.image, np.rot90(stored, -1))
    assert sample.labels.shape == (12, 4)
    assert sample.content_hashes() == (content_hash(sample.image), content_hash(stored))


def test_a_users_pattern_says_which_photos_belong_together(folder):
    assert photos(folder, "^[a-z]+|^1").groups() == ("frame", "frame", "1", "top")


def test_a_photo_that_is_none_is_an_image_error(folder):
    (folder / "b/1.png").write_bytes(b"none")
    with pytest.raises(ImageError, match=r"1\.png"):
        photos(folder)[2]


def test_the_command_line_takes_photos_in_place_of_a_data_set(folder, capsys):
    assert asked("--images", folder).groups() == ("a", "a", "b", ".")
    assert "4 images; 1 left out: notes.txt" in capsys.readouterr().err
    every = asked("--images", folder, "--group-by", ".*", "--limit", "3")
    assert every.groups() == ("frame2.png", "1.png", "top.png")
    assert not every.labelled


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "give --dataset NAME --data DIR, or --images DIR for photos without labels"),
        (("--dataset", "camvid"), "--dataset camvid needs --data also: give"),
        (("--data", "x"), "--data x needs --dataset also: give"),
        (("--images", "x", "--data", "x"), "--images x and a data set are both given"),
        (("--images", "x", "--dataset", "camvid"), "--images x and a data set are both"),
        (("--images", "x", "--exif", "apply"), "--exif apply is for a data set, but the photos"),
        (("--images", "x", "--split", "val"), "--split val is for a data set, but --images takes"),
    ],
)
def test_half_a_request_and_two_in_one_are_refused(argv, message):
    with pytest.raises(InputError, match=message):
        asked(*argv)


def test_a_folder_without_photos_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="holds no image"):
        asked("--images", tmp_path)
    with pytest.raises(DatasetError, match="does not exist"):
        asked("--images", tmp_path / "none")
    write_image(tmp_path / "a.png", noise())
    with pytest.raises(InputError, match=r"finds nothing in a\.png"):
        asked("--images", tmp_path, "--group-by", "^seq")
