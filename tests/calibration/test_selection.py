"""Which images are calibrated on, and what is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from icnet_deploy.calibration import CalibrationSet, choose, stratified
from icnet_deploy.data import Dataset, content_hash, image_files
from icnet_deploy.errors import DatasetError, ImageError, InputError
from icnet_deploy.images import Fitting, ImageFile, fit_image, read_image, resize_image, write_image
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


def test_a_letterbox_is_calibrated_on_as_it_is_predicted(photos):
    fitting = Fitting("letterbox", (10, 20, 30))
    files = image_files(photos)
    with pytest.raises(ImageError, match="resizing would distort the image"):
        choose(files, (97, 400))
    chosen = choose(files, (97, 400), fitting=fitting)
    for file, image in zip(files, chosen, strict=True):
        np.testing.assert_array_equal(
            image, fit_image(read_image(file), (97, 400), "letterbox", (10, 20, 30)).pixels
        )
    assert chosen.first(3).fitting == fitting


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
    [((60, 90, 3), "enlarged that much"), ((128, 900, 3), "would distort the image")],
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
    with pytest.raises(
        InputError, match=r"3\.png shows the same pixels as .*other\.bmp, which models are"
    ):
        choose(image_files(photos), (97, 161), image_files(tmp_path / "val"))


def on_its_side(source, target):
    """Stores the same photo turned to the left, with EXIF's orientation that turns it back."""
    exif = Image.Exif()
    exif[274] = 6
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(np.rot90(read_image(source)))).save(target, exif=exif)


def test_unlabelled_images_are_turned_as_exif_says(photos):
    upright = [read_image(file) for file in image_files(photos)]
    for file in image_files(photos):
        on_its_side(file, file)
    chosen = choose(image_files(photos), (97, 161))
    assert all(
        np.array_equal(one, resize_image(two, (97, 161)))
        for one, two in zip(chosen, upright, strict=True)
    )


def test_a_data_sets_images_that_exif_turns_are_refused_until_that_is_explained(photos):
    file = photos / "3.png"
    on_its_side(file, file)
    with pytest.raises(DatasetError, match=r"3\.png has the EXIF orientation 6.*--exif apply"):
        choose(image_files(photos), (97, 161), exif=None)
    assert choose(image_files(photos), (97, 161), exif="apply").turn
    with pytest.raises(ImageError, match=r"3\.png is 192x128.*would distort the image"):
        choose(image_files(photos), (97, 161), exif="ignore")


def test_an_image_that_is_scored_on_is_refused_however_it_lies(photos, tmp_path):
    """Turned by EXIF or by hand, with or without its EXIF."""
    side = tmp_path / "side.png"
    on_its_side(photos / "3.png", side)
    for stored in (read_image(photos / "3.png"), ImageFile(side).rgb(turn=False)):
        val = tmp_path / str(stored.shape[0])
        write_image(val / "other.bmp", stored)
        shutil.copy(side, photos / "3.png")
        with pytest.raises(
            InputError, match=r"3\.png shows the same pixels as .*other\.bmp, which models are"
        ):
            choose(image_files(photos), (97, 161), image_files(val))


def test_an_artefact_names_an_image_both_ways(photos):
    """Whoever scores it may read the same file otherwise, or a copy without its EXIF."""
    stored = np.ascontiguousarray(np.rot90(read_image(photos / "3.png")))
    upright = content_hash(read_image(photos / "3.png"))
    on_its_side(photos / "3.png", photos / "3.png")
    hashes = choose(image_files(photos), (97, 161)).hashes
    assert hashes[3] == upright
    assert hashes[len(image_files(photos)) :] == (content_hash(stored),)


def test_a_linked_sub_folder_and_every_format_are_searched(photos, tmp_path):
    write_image(tmp_path / "elsewhere" / "a.png", read_image(photos / "1.png"))
    (photos / "link").symlink_to(tmp_path / "elsewhere")
    (photos / ".b.png").write_bytes(b"")
    (photos / "c.txt").write_bytes(b"")
    for suffix in ("jfif", "avif", "jp2", "gif", "pgm", "jpe"):
        (photos / f"x.{suffix}").write_bytes(b"")
    found = {file.name for file in image_files(photos)} - {f"{i}.png" for i in range(99)}
    assert found == {"a.png", "x.jfif", "x.avif", "x.jp2", "x.gif", "x.pgm", "x.jpe"}


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="holds no image"):
        image_files(tmp_path)
    with pytest.raises(DatasetError, match="does not exist"):
        image_files(tmp_path / "none")
