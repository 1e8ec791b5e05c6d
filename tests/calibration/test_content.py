"""Pictures that show almost nothing are told from those that do, however dark these are."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from icnet_deploy.calibration import choose
from icnet_deploy.calibration.artefact import Recipe, write_quantized
from icnet_deploy.calibration.calibrate import calibrate
from icnet_deploy.calibration.content import nothing_in, require_content
from icnet_deploy.calibration.placements.registry import PLACEMENTS
from icnet_deploy.calibration.selection import checked_on
from icnet_deploy.cli import main
from icnet_deploy.data import image_files
from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.errors import CheckFailed, InputError
from icnet_deploy.images import write_image

SIZES = [(97, 161), (360, 480), (512, 1024)]


def grid(size):
    """Row and column of each pixel, 0..1."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    return rows / (size[0] - 1), columns / (size[1] - 1)


def grey(values):
    return np.repeat(np.clip(values, 0, 255)[..., None], 3, 2).astype(np.uint8)


def noise(size, spread, mean=128.0):
    random = np.random.default_rng(0)
    return np.clip(mean + spread * random.normal(size=(*size, 3)), 0, 255).astype(np.uint8)


def as_jpeg(image):
    return cv2.imdecode(cv2.imencode(".jpg", image)[1], cv2.IMREAD_COLOR)


NOTHING = {
    "black": (lambda size: np.zeros((*size, 3), np.uint8), "one colour"),
    "white": (lambda size: np.full((*size, 3), 255, np.uint8), "one colour"),
    "grey": (lambda size: np.full((*size, 3), 128, np.uint8), "one colour"),
    "blue": (lambda size: np.full((*size, 3), (10, 30, 200), np.uint8), "one colour"),
    "grey and 1 LSB": (lambda size: noise(size, 1), "one colour|noise"),
    "grey and noise": (lambda size: noise(size, 10), "noise"),
    "dark noise": (lambda size: noise(size, 3, 4), "one colour|noise"),
    "noise": (lambda size: noise(size, 80), "noise"),
    "noise as JPEG": (lambda size: as_jpeg(noise(size, 20)), "noise"),
    "grey noise": (lambda size: grey(noise(size, 60)[..., 0]), "noise"),
    "from left to right": (lambda size: grey(255 * grid(size)[1]), "no edges"),
    "from top to bottom": (lambda size: grey(255 * grid(size)[0]), "no edges"),
    "across": (lambda size: grey(127 * sum(grid(size))), "no edges"),
    "a faint one": (lambda size: grey(100 + 20 * grid(size)[1]), "no edges"),
    "around the middle": (
        lambda size: grey(350 * np.hypot(grid(size)[0] - 0.5, grid(size)[1] - 0.5)),
        "no edges",
    ),
    "of three colours": (
        lambda size: np.stack(
            [255 * grid(size)[0], 255 * grid(size)[1], 255 - 255 * grid(size)[1]], -1
        ).astype(np.uint8),
        "no edges",
    ),
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", NOTHING)
def test_what_shows_nothing(name, size):
    make, said = NOTHING[name]
    assert nothing_in(make(size)) in said.split("|")


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_scenes_show_something_by_day_and_night(size):
    for index in range(6):
        scene = draw_scene((4, index), size).image
        night = (scene * 0.05).astype(np.uint8)
        assert night.max() <= 12
        random = np.random.default_rng(index)
        noisy = np.clip(night + 2 * random.normal(size=night.shape), 0, 255).astype(np.uint8)
        fog = (200 + scene * 0.1).astype(np.uint8)
        blurred = cv2.GaussianBlur(scene, (0, 0), size[0] / 60)
        for image in (scene, night, noisy, fog, blurred, as_jpeg(scene), scene[:, ::-1]):
            assert nothing_in(np.ascontiguousarray(image)) == ""


def names(count):
    return [Path(f"{index}.png") for index in range(count)]


def test_one_picture_many_times_is_one():
    scene = draw_scene(5, (97, 161)).image
    random = np.random.default_rng(0)
    again = [
        np.clip(scene.astype(int) + random.integers(-1, 2, scene.shape), 0, 255).astype(np.uint8)
        for _ in range(11)
    ]
    darker = [(scene * share).astype(np.uint8) for share in (0.9, 0.8)]
    with pytest.raises(InputError, match=r"13 of 14 .*1\.png \(the same as 0\.png\).* 8 more"):
        require_content(names(14), [scene, *again, *darker], 8)


def test_scenes_beside_each_other_are_not_the_same():
    scenes = [draw_scene((6, index), (97, 161)).image for index in range(16)]
    nights = [(scene * 0.05).astype(np.uint8) for scene in scenes]
    assert require_content(names(16), scenes, 8) == ""
    assert require_content(names(16), nights, 8) == ""


@pytest.mark.parametrize(("good", "flat", "refused"), [(8, 1, False), (8, 8, False), (8, 9, True)])
def test_some_that_show_nothing_are_said_and_too_many_refused(good, flat, refused):
    images = [draw_scene((7, index), (97, 161)).image for index in range(good)]
    images += [np.full((97, 161, 3), index, np.uint8) for index in range(flat)]
    if refused:
        with pytest.raises(InputError, match="show almost nothing"):
            require_content(names(good + flat), images, 8)
    else:
        said = require_content(names(good + flat), images, 8)
        assert said.startswith(f"{flat} of {good + flat} images show almost nothing")
        assert "8.png (one colour)" in said


def test_too_few_that_show_something_are_refused():
    images = [draw_scene((8, index), (97, 161)).image for index in range(7)]
    flat = np.full((97, 161, 3), 9, np.uint8)
    with pytest.raises(InputError, match="Expected at least 8 images, and half of all, that show"):
        require_content(names(8), [*images, flat], 8)


@pytest.fixture
def folder(tmp_path):
    """A function that writes images into a folder of a name, and returns it."""

    def make(name, images):
        for index, image in enumerate(images):
            write_image(tmp_path / name / f"{index:02}.png", image)
        return tmp_path / name

    return make


@pytest.fixture
def greys(folder, size):
    """A folder of pictures of one grey each."""
    return folder("greys", [np.full((*size, 3), 100 + i, np.uint8) for i in range(12)])


@pytest.fixture
def photos(folder, size):
    """A function that makes a folder of as many scenes."""
    return lambda count: folder("photos", [draw_scene((9, i), size).image for i in range(count)])


def quantize(float_file, out, *arguments):
    told = ["quantize", float_file, *arguments, "--placement", "int8", "-o", out / "int8.onnx"]
    return main(list(map(str, told)))


def test_pictures_of_one_grey_are_refused(float_file, greys, dataset, tmp_path, capsys):
    out = tmp_path / "out"
    held_out = ("--held-out", dataset / "leftImg8bit" / "val")
    for more in ((), held_out):
        assert quantize(float_file, out, "--images", greys, *more) == 2
        said = capsys.readouterr()
        assert "images show almost nothing, or nothing new: 0" in said.err
        assert "%" not in said.out
    assert not out.exists()


def test_labels_are_compared_on_images_that_were_not_calibrated_on(
    float_file, greys, photos, dataset, tmp_path, capsys
):
    from icnet_deploy.data import content_hash
    from icnet_deploy.images import read_image
    from icnet_deploy.metadata import read_onnx_metadata

    source = photos(12)
    held_out = dataset / "leftImg8bit" / "val"
    for arguments, said, used in (
        ((), "2 unused images", 10),
        (("--count", "8"), "4 unused images", 8),
        (("--held-out", held_out), "4 held-out images", 12),
        (("--held-out", greys), "8 drawn scenes (every image that shows something was", 12),
    ):
        assert quantize(float_file, tmp_path, "--images", source, *arguments) == 0
        assert f"labels alike with float32 on {said}" in capsys.readouterr().out
        assert len(read_onnx_metadata(tmp_path / "int8.onnx").calibration_images) == used
    for path in sorted(source.iterdir())[8:]:
        path.unlink()
    assert quantize(float_file, tmp_path, "--images", source) == 0
    assert "labels alike with float32 on 8 drawn scenes" in capsys.readouterr().out
    calibrated = read_onnx_metadata(tmp_path / "int8.onnx").calibration_images
    assert set(calibrated) == {content_hash(read_image(path)) for path in source.iterdir()}


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_file_that_is_nonsense_on_other_images_is_not_kept(
    placement, float_file, greys, photos, size, tmp_path
):
    """What is said of its own images proves nothing: those of one grey were 99.9 % alike."""
    flat = choose(image_files(greys), size)
    calibration = calibrate(onnx.load(float_file), flat, "0" * 64)
    checked = checked_on(image_files(photos(4)), [], flat)
    out = tmp_path / "out" / "bad.onnx"

    def write(images, words):
        return write_quantized(float_file, out, Recipe(calibration, placement), images, words)

    wrong = (
        f"the {placement} graph on onnxruntime gives .* of the labels of .* on 4 held-out images; "
        "expected at least 95%"
    )
    with pytest.raises(CheckFailed, match=wrong):
        write(checked.images(), checked.words)
    assert not out.exists()
    assert min(one.share for one in write(flat, "its own")) > 0.99


def test_of_night_frames_scenes_are_drawn_by_night(float_file, size, folder, tmp_path, capsys):
    nights = [(draw_scene((9, i), size).image * 0.05).astype(np.uint8) for i in range(8)]
    assert quantize(float_file, tmp_path, "--images", folder("nights", nights)) == 0
    assert "labels alike with float32 on 8 drawn scenes" in capsys.readouterr().out
