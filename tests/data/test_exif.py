"""Labelled images that EXIF turns: nobody knows how their masks were drawn, unless told."""

import numpy as np
import pytest
from PIL import Image

from icnet_deploy.cli import main
from icnet_deploy.data import content_hash, open_dataset
from icnet_deploy.errors import DatasetError
from icnet_deploy.images import write_labels

EXIF = 274


def photo(path, pixels, orientation):
    """Writes stored pixels with an orientation, without loss whatever the name."""
    exif = Image.Exif()
    exif[EXIF] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG", exif=exif)


def pixels(seed=0, size=(4, 12)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def indices(size=(4, 12)):
    return (np.arange(size[0] * size[1]) % 11).astype(np.uint8).reshape(size)


def turned(array):
    """By orientation 6: a quarter to the right."""
    return np.rot90(array, -1)


@pytest.fixture
def camvid(tmp_path):
    """One stored photo of 4x12 that EXIF turns to 12x4; its mask is written by the test."""
    photo(tmp_path / "val" / "a.png", pixels(), 6)
    (tmp_path / "valannot").mkdir()
    return tmp_path


def mask(camvid, labels):
    write_labels(camvid / "valannot" / "a.png", np.ascontiguousarray(labels))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_an_image_that_exif_turns_is_refused_until_its_masks_are_explained(camvid, orientation):
    photo(camvid / "val" / "a.png", pixels(), orientation)
    mask(camvid, indices())
    with pytest.raises(DatasetError) as caught:
        open_dataset("camvid", camvid)[0]
    for word in ("a.png", f"EXIF orientation {orientation}", "--exif apply", "--exif ignore"):
        assert word in str(caught.value)


def test_apply_reads_the_turned_picture(camvid):
    mask(camvid, turned(indices()))
    sample = open_dataset("camvid", camvid, exif="apply")[0]
    assert np.array_equal(sample.image, turned(pixels()))
    assert np.array_equal(sample.labels, turned(indices()))


def test_ignore_reads_the_stored_pixels(camvid):
    mask(camvid, indices())
    sample = open_dataset("camvid", camvid, exif="ignore")[0]
    assert np.array_equal(sample.image, pixels())
    assert np.array_equal(sample.labels, indices())


@pytest.mark.parametrize(("exif", "other"), [("apply", "ignore"), ("ignore", "apply")])
def test_a_mask_of_the_other_way_is_refused_by_its_size(camvid, exif, other):
    mask(camvid, indices() if exif == "apply" else turned(indices()))
    with pytest.raises(
        DatasetError, match=f"as --exif {exif} reads it: give --exif {other}, which fits its mask"
    ):
        open_dataset("camvid", camvid, exif=exif)[0]


@pytest.mark.parametrize("exif", [None, "apply", "ignore"])
def test_an_upright_image_is_the_same_whatever_was_said(camvid, exif):
    photo(camvid / "val" / "a.png", pixels(), 1)
    mask(camvid, indices())
    sample = open_dataset("camvid", camvid, exif=exif).first(1)[0]
    assert np.array_equal(sample.image, pixels())
    assert sample.content_hashes() == (content_hash(pixels()),)


def test_what_was_said_stays_with_a_part_of_the_data_set(camvid):
    mask(camvid, turned(indices()))
    photo(camvid / "val" / "b.png", pixels(1), 6)
    write_labels(camvid / "valannot" / "b.png", np.ascontiguousarray(turned(indices())))
    assert open_dataset("camvid", camvid, exif="apply").first(1)[0].image.shape == (12, 4, 3)


def test_a_word_that_says_nothing_is_refused(camvid):
    with pytest.raises(DatasetError, match="exif is apply or ignore; got 'rotate'"):
        open_dataset("camvid", camvid, exif="rotate")


@pytest.mark.parametrize("layout", ["indices", "colours", "cityscapes"])
def test_a_mask_with_an_orientation_of_its_own_is_refused(layout, tmp_path):
    labels, name = pixels(), "camvid"
    if layout == "colours":
        photo(tmp_path / "val" / "a.png", pixels(), 1)
        where = tmp_path / "val_labels" / "a_L.png"
    elif layout == "indices":
        photo(tmp_path / "val" / "a.png", pixels(), 1)
        where, labels = tmp_path / "valannot" / "a.png", indices()
    else:
        name, labels = "cityscapes", indices()
        photo(tmp_path / "leftImg8bit/val/bonn/bonn_0_leftImg8bit.png", pixels(), 1)
        where = tmp_path / "gtFine/val/bonn/bonn_0_gtFine_labelIds.png"
    photo(where, labels, 3)
    for exif in (None, "apply", "ignore"):
        with pytest.raises(DatasetError, match="EXIF orientation 3; expected 1"):
            open_dataset(name, tmp_path, exif=exif)[0]


@pytest.mark.parametrize("exif", ["apply", "ignore"])
def test_both_ways_of_reading_an_image_give_its_hashes(camvid, exif):
    mask(camvid, turned(indices()) if exif == "apply" else indices())
    sample = open_dataset("camvid", camvid, exif=exif)[0]
    both = {content_hash(pixels()), content_hash(np.ascontiguousarray(turned(pixels())))}
    assert set(sample.content_hashes()) == both
    assert sample.content_hashes()[0] == content_hash(sample.image)


def test_commands_that_open_labelled_data_take_the_option(camvid, capsys):
    """Each gets past the images' orientation, or at least past its arguments."""
    for command in ("evaluate", "parity", "verify", "sensitivity", "quantize", "train", "compress"):
        assert main([command, "--help"]) == 0
        assert "--exif {apply,ignore}" in capsys.readouterr().out, command
