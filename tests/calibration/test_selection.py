"""Which images are calibrated on, and what is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from icnet_deploy.calibration import CalibrationSet, choose, image_files, stratified
from icnet_deploy.data import Dataset, content_hash
from icnet_deploy.errors import DatasetError, ImageError, InputError
from icnet_deploy.images import read_image, write_image
from icnet_deploy.labels import LabelSet


@pytest.fixture
def photos(tmp_path):
    """Ten unlike images of 128x192."""
    random = np.random.default_rng(0)
    for index in range(10):
        write_image(
            tmp_path / "photos" / f"{index}.png", random.integers(0, 255, (128, 192, 3), np.uint8)
        )
    return tmp_path / "photos"


def of_classes(tmp_path, shown):
    """A data set whose image i shows the classes shown[i]."""
    names = ("a", "b", "c")
    label_set = LabelSet("three", names, ((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    files = tuple((tmp_path / f"{i:03}.png", tmp_path / str(i)) for i in range(len(shown)))
    return Dataset(
        "three",
        "train",
        label_set,
        files,
        lambda path: np.resize(np.array(shown[int(path.name)], np.uint8), (8, 9)),
    )


def test_a_rare_class_is_drawn_as_often_as_it_can_be(tmp_path):
    shown = [[0]] * 95 + [[0, 1]] * 3 + [[0, 2]] * 2
    dataset = of_classes(tmp_path, shown)
    chosen = {int(path.stem) for path in stratified(dataset, 8)}
    assert len(chosen) == 8
    assert chosen >= {95, 96, 97, 98, 99}


def test_the_same_seed_draws_the_same_images(tmp_path):
    dataset = of_classes(tmp_path, [[i % 3] for i in range(60)])
    assert stratified(dataset, 9, seed=1) == stratified(dataset, 9, seed=1)
    assert stratified(dataset, 9, seed=1) != stratified(dataset, 9, seed=2)
    assert len(stratified(dataset, 500)) == 60


def test_every_image_is_yielded_at_the_graphs_size_and_named_by_its_own_pixels(photos):
    chosen = choose(image_files(photos), (97, 161))
    assert [image.shape for image in chosen] == [(97, 161, 3)] * 10
    assert chosen.hashes == tuple(content_hash(read_image(f)) for f in chosen.files)
    assert len(chosen.first(4)) == 4
    assert isinstance(chosen.first(4), CalibrationSet)


def test_too_few_images_are_refused(photos):
    with pytest.raises(InputError, match="7 images are too few to calibrate on: give at least 8"):
        choose(image_files(photos)[:7], (97, 161))


def test_a_broken_image_is_refused_by_name(photos):
    broken = photos / "4.png"
    broken.write_bytes(broken.read_bytes()[:900])
    with pytest.raises(ImageError, match=r"4\.png was cut off"):
        choose(image_files(photos), (97, 161))


@pytest.mark.parametrize(
    ("shape", "message"),
    [((60, 90, 3), "enlarged so far"), ((128, 900, 3), "would be distorted")],
)
def test_an_image_of_a_wrong_size_is_refused(photos, shape, message):
    write_image(photos / "4.png", np.zeros(shape, np.uint8))
    with pytest.raises(ImageError, match=rf"4\.png is {shape[0]}x{shape[1]}.*{message}"):
        choose(image_files(photos), (160, 256))


def test_an_image_that_is_there_twice_is_refused(photos):
    shutil.copy(photos / "2.png", photos / "copy.png")
    with pytest.raises(InputError, match=r"copy\.png shows the same pixels as .*2\.png"):
        choose(image_files(photos), (97, 161))


def test_an_image_that_is_scored_on_is_refused_whatever_its_format(photos, tmp_path):
    write_image(tmp_path / "val" / "other.bmp", read_image(photos / "3.png"))
    with pytest.raises(InputError, match=r"3\.png is the image .*other\.bmp of the split"):
        choose(image_files(photos), (97, 161), image_files(tmp_path / "val"))


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="holds no image"):
        image_files(tmp_path)
    with pytest.raises(DatasetError, match="does not exist"):
        image_files(tmp_path / "none")
