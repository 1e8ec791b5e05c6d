"""EXIF's orientation is applied in one way, whatever the format and the decoder's version."""

import cv2
import numpy as np
import pytest

from icnet_deploy.errors import ImageError
from icnet_deploy.formats.header import exif_orientation
from icnet_deploy.images import ImageFile, read_image

FORMATS = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100},
    "TIFF": {},
}


def upright(stored, orientation):
    """What EXIF 3.0 says of each number: where the stored first row and column belong."""
    return {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: stored.swapaxes(0, 1)[:, ::-1],
        7: stored.swapaxes(0, 1)[::-1, ::-1],
        8: stored.swapaxes(0, 1)[::-1],
    }[orientation]


def same(image, expected):
    return image.shape == expected.shape and np.abs(image.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_turned_upright(kind, orientation, files):
    content = files.by_pillow(kind, exif=files.exif(orientation), **FORMATS[kind])
    image = ImageFile(files.write(content))
    expected = upright(files.picture(), orientation)
    assert image.orientation == orientation
    assert image.size() == expected.shape[:2]
    assert image.size(turn=False) == (48, 64)
    assert same(read_image(image.path), expected)
    assert read_image(image.path).flags.c_contiguous
    assert same(image.rgb(turn=False), files.picture())
    assert same(next(iter(ImageFile(image.path).frames()))[0], expected)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_whoever_decodes_it(orientation, order, files):
    """Pillow and OpenCV turn TIFFs on their own account, and not all of them."""
    picture = files.picture()
    for values in (picture, picture[:, :, 0], picture.astype(np.uint16) * 257):
        path = files.write(
            files.tiff(files.tiff_page(values, order, _274=orientation), order=order)
        )
        colour = picture if values.ndim == 3 else np.repeat(values[:, :, None], 3, axis=2)
        assert np.array_equal(read_image(path), upright(colour, orientation))
        assert np.array_equal(ImageFile(path).rgb(turn=False), colour)


def test_a_png_of_sixteen_bits_is_turned(files):
    deep = files.by_opencv(".png", files.picture().astype(np.uint16) * 257)
    path = files.write(files.with_chunk(deep, b"eXIf", files.exif(6)[6:]))
    assert np.array_equal(read_image(path), upright(files.picture(), 6))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_a_number_without_a_meaning_is_no_orientation(orientation, files):
    path = files.write(files.by_pillow("PNG", exif=files.exif(orientation)))
    assert ImageFile(path).orientation == 1
    assert np.array_equal(read_image(path), files.picture())


def test_an_exif_block_that_is_none_is_no_orientation(files):
    block = files.exif(6)
    assert exif_orientation(block) == 6
    for wrong in (b"", b"Exif\0\0", b"II*\0", block[:16], b"XX" + block, block[:6] + b"II*\0\xff"):
        assert exif_orientation(wrong) == 1
    long = b"MM\0*\0\0\0\x08\0\1" + b"\x01\x12\0\4\0\0\0\1\0\0\0\x08" + bytes(4)  # a LONG
    assert exif_orientation(long) == 8


def test_a_thumbnails_exif_is_not_the_pictures(files):
    """The first block counts; a second one, and one behind the codes, does not."""
    content = files.by_pillow("JPEG", exif=files.exif(8))
    segment = b"\xff\xe1" + (len(files.exif(3)) + 2).to_bytes(2) + files.exif(3)
    behind = content.index(b"\xff\xdb")
    assert ImageFile(files.write(content[:behind] + segment + content[behind:])).orientation == 8


def test_xmp_is_not_exif(files):
    """Pillow looks for an orientation there, too; viewers do not."""
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    for kind, options in (
        ("WEBP", {"lossless": True, "xmp": xmp}),
        ("TIFF", {"tiffinfo": {700: xmp}}),
    ):
        path = files.write(files.by_pillow(kind, **options))
        assert np.array_equal(read_image(path), files.picture())


def test_a_label_map_with_an_orientation_is_refused(files):
    path = files.write(files.by_pillow("PNG", files.picture()[:, :, 0], exif=files.exif(6)))
    for read in (ImageFile.indices, ImageFile.colours):
        with pytest.raises(ImageError, match="EXIF orientation 6; expected 1"):
            read(ImageFile(path))


def test_the_decoders_own_turns_are_off(files):
    """Otherwise a picture would be turned twice, or by some versions only."""
    content = files.by_pillow("JPEG", exif=files.exif(6), **FORMATS["JPEG"])
    array = np.frombuffer(content, np.uint8)
    stored = cv2.imdecode(array, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert stored.shape == (48, 64, 3)
    assert read_image(files.write(content)).shape == (64, 48, 3)
