"""Samples that are not 8 bits of RGB: what they become, and what is refused."""

import zlib

import numpy as np
import pytest
from PIL import Image

from icnet_deploy.errors import ImageError
from icnet_deploy.images import read_image


def deep(files, bits, grey=False):
    """The picture in so many bits, in uint16, its low bits not zero."""
    values = files.picture().astype(np.uint16)
    values = values << (bits - 8) | values >> (16 - bits) & ((1 << (bits - 8)) - 1) | 1
    return np.ascontiguousarray(values[:, :, 0]) if grey else values


def expected(files, grey):
    picture = files.picture()
    return np.repeat(picture[:, :, :1], 3, axis=2) if grey else picture


def jp2(files, values):
    return files.by_pillow("JPEG2000", values, irreversible=False)


def pnm(values, most):
    kind = b"P6" if values.ndim == 3 else b"P5"
    head = b"%s %d %d %d\n" % (kind, values.shape[1], values.shape[0], most)
    return head + values.astype(">u2" if most > 255 else np.uint8).tobytes()


@pytest.mark.parametrize("grey", [False, True])
def test_all_sixteen_bits_become_the_upper_eight(grey, files):
    values = deep(files, 16, grey)
    contents = [
        files.by_opencv(".png", values),
        files.tiff(files.tiff_page(values)),
        pnm(values, 65535),
    ]
    contents += [
        files.tiff(files.tiff_page(values, ">"), order=">"),
        files.by_opencv(".tiff", values),
    ]
    if grey:
        contents.append(jp2(files, values))
    for content in contents:
        assert np.array_equal(read_image(files.write(content)), expected(files, grey))


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_a_file_that_says_how_many_bits_are_used_is_read_by_them(bits, grey, files):
    """A camera's 12 bits in 16 were read as near black."""
    values = deep(files, bits, grey)
    channels = 1 if grey else 3
    said = files.with_chunk(files.by_opencv(".png", values), b"sBIT", bytes([bits] * channels))
    most = (1 << bits) - 1
    for content in (
        said,
        files.tiff(files.tiff_page(values, _281=(most,) * channels)),
        files.tiff(files.tiff_page(values, ">", _281=(most,) * channels), order=">"),
        pnm(values, most),
    ):
        assert np.array_equal(read_image(files.write(content)), expected(files, grey))


def test_significant_bits_that_were_stretched_are_known(files):
    """PNG asks writers to bring 12 bits to 16, and to note the 12 (sBIT)."""
    values = deep(files, 12)
    stretched = values << 4 | values >> 8
    content = files.with_chunk(files.by_opencv(".png", stretched), b"sBIT", bytes([12] * 3))
    assert np.array_equal(read_image(files.write(content)), files.picture())


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("bits", [9, 10, 12, 14])
def test_a_file_that_does_not_say_is_refused_not_read_as_near_black(bits, grey, files):
    values = deep(files, bits, grey)
    contents = [
        files.by_opencv(".png", values),
        files.tiff(files.tiff_page(values)),
        pnm(values, 65535),
    ]
    if grey:
        contents.append(jp2(files, values))
    for content in contents:
        with pytest.raises(
            ImageError, match=rf"the largest is {values.max()}.*Convert it to 8 bits"
        ):
            read_image(files.write(content))


@pytest.mark.parametrize("grey", [False, True])
def test_alpha_does_not_tell_of_what_range_colours_are(grey, files):
    values = deep(files, 12, grey)
    alpha = np.full(values.shape[:2], 65535, np.uint16)
    if grey:  # OpenCV writes no grey with alpha
        rows = np.dstack([values, alpha]).astype(">u2")
        header = files.png_chunks(files.grey_png(values, 16))[0][1]
        packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
        chunks = [(b"IHDR", header[:9] + b"\4" + header[10:]), (b"IDAT", packed), (b"IEND", b"")]
        content = files.png_of(chunks)
    else:
        content = files.by_opencv(".png", np.dstack([values, alpha]))
    with pytest.raises(ImageError, match="Convert it to 8 bits"):
        read_image(files.write(content))
    said = files.with_chunk(content, b"sBIT", bytes([12] * values[0, 0].size) + b"\x10")
    assert np.array_equal(read_image(files.write(said)), expected(files, grey))


def test_a_hot_pixel_does_not_make_twelve_bits_sixteen(files):
    values = deep(files, 12)
    values[3, 5] = 65535
    with pytest.raises(ImageError, match="the largest is 65535"):
        read_image(files.write(files.by_opencv(".png", values)))


def test_black_is_black_in_every_range(files):
    black = np.zeros((8, 9, 3), np.uint16)
    assert not read_image(files.write(files.by_opencv(".png", black))).any()


def test_twelve_bits_packed_in_a_tiff_are_read(files):
    values = deep(files, 12, grey=True)
    first, second = values[:, ::2], values[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=2)
    page = files.tiff_page(values, _258=12) | {"pixels": packed.astype(np.uint8).tobytes()}
    assert np.array_equal(read_image(files.write(files.tiff(page))), expected(files, True))


@pytest.mark.parametrize("most", [1, 15, 100, 255, 1000])
def test_a_netpbm_picture_is_read_by_its_own_range(most, files):
    values = np.arange(48, dtype=np.uint16).reshape(4, 4, 3) * most // 47
    wanted = (values.astype(np.uint32) * 255 + most // 2) // most
    plain = b"P3 # made by hand\n4 4\n%d\n" % most + b" ".join(b"%d" % v for v in values.ravel())
    for content in (pnm(values, most), plain):
        assert np.array_equal(read_image(files.write(content)), wanted)
    with pytest.raises(ImageError, match="its header says 7 at most"):
        read_image(files.write(pnm(values // (most // 15 + 1) + 8, 7)))


def test_a_bitmap_of_netpbm_is_black_where_it_is_1(files):
    for content in (
        b"P4 10 2\n" + bytes([0b10110000, 0x40, 0xFF, 0xFF]),
        b"P1 10 2 1011000001" + b"1" * 10,
    ):
        image = read_image(files.write(content))
        assert image[0, :, 1].tolist() == [0, 255, 0, 0, 255, 255, 255, 255, 255, 0]
        assert image.shape == (2, 10, 3)
        assert not image[1].any()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_is_stretched(bits, files):
    values = np.arange(32, dtype=np.uint8).reshape(4, 8) % (1 << bits)
    image = read_image(files.write(files.grey_png(values, bits)))
    assert np.array_equal(image[:, :, 2], values * (255 // ((1 << bits) - 1)))


def test_what_is_transparent_keeps_its_stored_colour(files):
    """Nothing says what lies behind; PNG, WebP, TIFF and AVIF agree."""
    alpha = np.zeros((48, 64), np.uint8)
    alpha[:, :40] = 255
    rgba = np.dstack([files.picture(), alpha])
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        image = read_image(files.write(files.by_pillow(kind, rgba, **options)))
        assert np.array_equal(image, files.picture()), kind
    grey = np.dstack([files.picture()[:, :, 0], alpha])
    for kind in ("PNG", "TIFF"):
        image = read_image(files.write(files.by_pillow(kind, Image.fromarray(grey, "LA"))))
        assert np.array_equal(image, expected(files, True)), kind


def test_a_transparent_entry_of_a_palette_keeps_its_colour(files):
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    indices = np.arange(48, dtype=np.uint8).reshape(6, 8) % 3
    content = files.palette_png(indices, colours, transparent=[0, 255])
    assert np.array_equal(read_image(files.write(content)), np.array(colours)[indices])


def test_cmyk_is_refused(files):
    cmyk = Image.fromarray(files.picture()).convert("CMYK")
    for kind in ("JPEG", "TIFF"):
        with pytest.raises(ImageError, match=r"is in CMYK.*convert"):
            read_image(files.write(files.by_pillow(kind, cmyk)))


def test_samples_that_are_no_small_whole_numbers_are_refused(files):
    grey = files.picture()[:, :, 0]
    for array in (grey.astype(np.float32), grey.astype(np.int32)):
        with pytest.raises(ImageError, match="expected whole numbers of 1 to 8 or 16 bits"):
            read_image(files.write(files.by_pillow("TIFF", array)))
    signed = files.tiff(files.tiff_page(grey.astype(np.uint16), _339=2))
    with pytest.raises(ImageError, match="signed samples of 16 bits"):
        read_image(files.write(signed))


def test_hdr_is_refused(files):
    """Its curve (PQ 16, HLG 18) is not what a network was trained on; 1 is television's."""
    plain = files.by_opencv(".png")
    for curve in (16, 18):
        with pytest.raises(ImageError, match="HDR"):
            read_image(files.write(files.with_chunk(plain, b"cICP", bytes([9, curve, 0, 1]))))
    path = files.write(files.with_chunk(plain, b"cICP", bytes([1, 1, 0, 1])))
    assert np.array_equal(read_image(path), files.picture())
    avif = files.by_pillow("AVIF")
    at = avif.index(b"colrnclx") + 8
    assert read_image(files.write(avif)).shape == (48, 64, 3)
    with pytest.raises(ImageError, match="HDR"):
        read_image(files.write(avif[: at + 2] + (16).to_bytes(2) + avif[at + 4 :]))


def test_a_colour_profile_is_not_applied(files):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    path = files.write(files.by_pillow("PNG", icc_profile=profile))
    assert np.array_equal(read_image(path), files.picture())


def test_a_tiff_whose_0_is_white_is_read_as_it_looks(files):
    grey = files.picture()[:, :, 0]
    path = files.write(files.tiff(files.tiff_page(255 - grey, _262=0)))
    assert np.array_equal(read_image(path)[:, :, 0], grey)
    with pytest.raises(ImageError, match="whose 0 is white, in 16 bits"):
        read_image(files.write(files.tiff(files.tiff_page(deep(files, 16, True), _262=0))))
