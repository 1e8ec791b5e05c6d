"""Reading, checking, resizing and writing images."""

import cv2
import numpy as np
import pytest

from icnet_deploy.errors import ImageError
from icnet_deploy.images import (
    check_image,
    read_grey,
    read_image,
    resize_image,
    resize_labels,
    write_image,
    write_labels,
)


def picture(height=48, width=64):
    """A smooth picture that no mirror, transposition or change of channels leaves equal."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 3, y * 2, 255 - x - y], axis=2).astype(np.uint8)


def encoded(suffix, image=None):
    ok, data = cv2.imencode(suffix, picture()[:, :, ::-1] if image is None else image)
    assert ok
    return data.tobytes()


@pytest.fixture
def file(tmp_path):
    def write(content, name="image"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tiff"])
def test_a_lossless_image_is_read_exactly_and_in_rgb_order(suffix, file):
    image = read_image(file(encoded(suffix)))
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert np.array_equal(image, picture())


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_a_lossy_image_is_read_nearly(suffix, file):
    image = read_image(file(encoded(suffix)))
    assert np.abs(image.astype(int) - picture()).mean() < 4


def test_red_comes_first(tmp_path):
    red = np.zeros((4, 4, 3), np.uint8)
    red[:, :, 0] = 255
    write_image(tmp_path / "red.png", red)
    assert cv2.imread(str(tmp_path / "red.png"))[0, 0].tolist() == [0, 0, 255]  # BGR
    assert np.array_equal(read_image(tmp_path / "red.png"), red)


def test_grey_becomes_three_equal_channels(file):
    grey = picture()[:, :, 0]
    image = read_image(file(encoded(".png", grey)))
    assert np.array_equal(image, np.stack([grey] * 3, axis=2))


def test_an_alpha_channel_is_dropped(file):
    rgba = np.dstack([picture()[:, :, ::-1], np.full((48, 64), 7, np.uint8)])
    assert np.array_equal(read_image(file(encoded(".png", rgba))), picture())


def test_sixteen_bits_become_the_upper_eight(file):
    deep = picture()[:, :, ::-1].astype(np.uint16) * 256 + 99
    assert np.array_equal(read_image(file(encoded(".png", deep))), picture())


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_an_image_that_was_cut_off_is_refused(suffix, file, capfd):
    content = encoded(suffix)
    for end in [*range(0, len(content), len(content) // 9), len(content) - 1]:
        with pytest.raises(ImageError, match=r"cut off|not an image"):
            read_image(file(content[:end]))
    if suffix in (".png", ".jpg"):
        assert capfd.readouterr().err == ""  # the decoders' own words stay out of the one line


def test_what_follows_the_end_of_an_image_does_no_harm(file):
    assert np.array_equal(read_image(file(encoded(".png") + b"\0 appended")), picture())


@pytest.mark.parametrize("content", [b"", b"a text file\n", b"%PDF-1.7 ...", bytes(1000)])
def test_what_is_no_image_is_refused(content, file):
    with pytest.raises(ImageError, match=f"not an image .*{len(content)} bytes"):
        read_image(file(content, "image.png"))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ImageError, match=r"none\.png: No such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="cannot read the image"):
        read_image(tmp_path)


def test_a_label_map_is_read_back_unchanged(tmp_path):
    labels = np.arange(256, dtype=np.uint8).reshape(8, 32)
    write_labels(tmp_path / "labels.png", labels)
    assert np.array_equal(read_grey(tmp_path / "labels.png"), labels)


def test_a_label_map_in_colours_holds_the_values_too(tmp_path):
    labels = np.arange(256, dtype=np.uint8).reshape(8, 32)
    palette = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    path = tmp_path / "colours.png"
    write_labels(path, labels, palette)
    assert np.array_equal(read_image(path), palette[labels])
    assert np.array_equal(read_grey(path), labels)


@pytest.mark.parametrize(
    "array",
    [picture(), picture()[:, :, 0].astype(np.uint16) * 257, np.zeros((4, 4, 4), np.uint8)],
)
def test_a_label_map_has_one_channel_of_eight_bits(array, file):
    with pytest.raises(ImageError, match="expected one 8-bit channel"):
        read_grey(file(encoded(".png", array)))


@pytest.mark.parametrize("name", ["image.xyz", "image", "image.txt"])
def test_an_unknown_format_is_refused_and_nothing_is_written(name, tmp_path):
    with pytest.raises(ImageError, match="no known image format"):
        write_image(tmp_path / name, picture())
    assert list(tmp_path.iterdir()) == []


def test_check_image_returns_a_good_image():
    image = picture()
    assert check_image(image) is image


@pytest.mark.parametrize(
    "image",
    [
        picture().astype(np.float32),
        picture().astype(np.int64),
        picture()[:, :, 0],
        picture()[:, :, :2],
        picture()[None],
        picture().transpose(2, 0, 1),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
    ],
)
def test_check_image_says_what_it_got(image):
    with pytest.raises(ImageError) as caught:
        check_image(image)
    assert str(image.dtype) in str(caught.value)
    assert str(image.shape) in str(caught.value)


@pytest.mark.parametrize("thing", [None, "a.png", [[1]], 3])
def test_check_image_wants_an_array(thing):
    with pytest.raises(ImageError, match=f"got {type(thing).__name__}"):
        check_image(thing)


def test_an_image_is_resized_bilinearly():
    image = np.zeros((2, 2, 3), np.uint8)
    image[:, 1] = 200
    wide = resize_image(image, (2, 4))
    assert wide.dtype == np.uint8
    assert wide[0, :, 0].tolist() == [0, 50, 150, 200]
    assert resize_image(picture(), (30, 100)).shape == (30, 100, 3)


def test_labels_are_resized_without_new_values():
    labels = np.array([[0, 255], [7, 18]], np.uint8)
    large = resize_labels(labels, (6, 4))
    assert large.dtype == np.uint8
    assert np.array_equal(large, labels.repeat(3, axis=0).repeat(2, axis=1))
    assert np.array_equal(resize_labels(large, (2, 2)), labels)


def test_the_right_size_is_passed_through():
    image = picture()
    assert resize_image(image, (48, 64)) is image
    labels = image[:, :, 0]
    assert resize_labels(labels, (48, 64)) is labels
