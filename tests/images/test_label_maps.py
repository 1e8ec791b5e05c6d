"""Label maps: a palette's indices, exact values, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from icnet_deploy.errors import ImageError
from icnet_deploy.images import ImageFile, read_grey, read_image

COLOURS = np.random.default_rng(3).integers(0, 256, (256, 3), np.uint8)


def labels(count=256):
    return (np.arange(48 * 65, dtype=np.uint32) * 7 % count).astype(np.uint8).reshape(48, 65)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palettes_indices_are_the_labels(bits, files):
    """LabelMe, CVAT, VOC and Pascal's tools write such PNGs; OpenCV gives colours only."""
    values = labels(1 << bits)
    palette = COLOURS[: 1 << bits]
    for transparent in (None, [0], [255, 0]):
        path = files.write(files.palette_png(values, palette, bits, transparent))
        assert np.array_equal(read_grey(path), values)
        assert np.array_equal(read_image(path), palette[values])
        assert np.array_equal(ImageFile(path).colours(), palette[values])


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_of_any_depth_holds_its_values(bits, files):
    values = labels(1 << min(bits, 8))
    assert np.array_equal(read_grey(files.write(files.grey_png(values, bits))), values)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_every_format_with_a_palette_gives_its_indices(kind, files):
    values = labels()
    image = Image.fromarray(values, "P")
    image.putpalette(COLOURS.tobytes())
    options = {"optimize": False} if kind == "GIF" else {}  # which would sort the palette
    path = files.write(files.by_pillow(kind, image, **options))
    assert np.array_equal(read_grey(path), values)
    assert np.array_equal(read_image(path), COLOURS[values])


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "PPM"])
def test_every_format_with_grey_gives_its_values(kind, files):
    values = labels()
    assert np.array_equal(read_grey(files.write(files.by_pillow(kind, values))), values)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_a_bilevel_mask_holds_0_and_1(kind, files):
    """A PBM's 1 is black: what stands in the file counts, not its colour."""
    values = labels(2)
    content = files.by_pillow(kind, Image.fromarray(values * 255).convert("1"))
    expected = 1 - values if kind == "PPM" else values
    assert np.array_equal(read_grey(files.write(content)), expected)


def bmp(values, bits, palette, packing=0):
    """A BMP of 1, 4 or 8 bits."""
    height, width = values.shape
    cells = (values[:, :, None] >> np.arange(bits)[::-1] & 1).reshape(height, -1)
    rows = np.packbits(cells.astype(np.uint8), axis=1)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))[::-1]
    table = b"".join(bytes([b, g, r, 0]) for r, g, b in palette)
    start = 54 + len(table)
    size = start + rows.size
    head = b"BM" + size.to_bytes(4, "little") + bytes(4) + start.to_bytes(4, "little")
    fields = [(40, 4), (width, 4), (height, 4), (1, 2), (bits, 2), (packing, 4), (rows.size, 4)]
    fields += [(2835, 4), (2835, 4), (len(palette), 4), (0, 4)]
    return head + b"".join(v.to_bytes(n, "little") for v, n in fields) + table + rows.tobytes()


@pytest.mark.parametrize(("bits", "palette"), [
    (1, [(0, 0, 0), (255, 255, 255)]),
    (1, [(255, 255, 255), (0, 0, 0)]),
    (4, [(i, i, i) for i in range(16)]),
    (8, [(0, 0, 0), (255, 255, 255)]),
    (8, [(i, i, i) for i in range(256)]),
    (8, [(9, 9, 9)] * 256),
])  # fmt: skip
def test_a_bmps_indices_do_not_depend_on_its_colours(bits, palette, files):
    values = labels(len(palette))
    assert np.array_equal(read_grey(files.write(bmp(values, bits, palette))), values)


def test_a_bmp_that_is_packed_is_refused(files):
    with pytest.raises(ImageError, match="packed pixels"):
        read_grey(files.write(bmp(labels(256), 8, COLOURS, packing=1)))


def test_values_above_255_are_refused(files):
    instances = labels().astype(np.uint16) + 26_000  # such as Cityscapes' instanceIds
    with pytest.raises(ImageError, match=r"values up to 26255.*instance ids"):
        read_grey(files.write(files.by_opencv(".png", instances)))


def test_sixteen_bits_of_small_values_are_labels_not_an_image(files):
    path = files.write(files.by_opencv(".png", labels().astype(np.uint16)))
    assert np.array_equal(read_grey(path), labels())
    path = files.write(files.tiff(files.tiff_page(labels().astype(np.uint16), ">"), order=">"))
    assert np.array_equal(read_grey(path), labels())


def test_alpha_beside_grey_is_ignored(files):
    both = np.dstack([labels(), 255 - labels()])
    for kind in ("PNG", "TIFF"):
        path = files.write(files.by_pillow(kind, Image.fromarray(both, "LA")))
        assert np.array_equal(read_grey(path), labels())


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_without_a_palette_are_refused_even_if_they_are_grey(channels, files):
    grey = np.repeat(labels()[:, :, None], channels, axis=2)
    with pytest.raises(ImageError, match="is in colours; expected one 8-bit channel"):
        read_grey(files.write(files.by_pillow("PNG", grey)))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "JPEG2000"])
def test_a_format_that_may_change_values_is_refused(kind, files):
    path = files.write(files.by_pillow(kind, labels(), quality=100) if kind != "JPEG2000" else
                       files.by_pillow(kind, labels()))  # fmt: skip
    for read in (ImageFile.indices, ImageFile.colours):
        with pytest.raises(ImageError, match="may change values; expected PNG"):
            read(ImageFile(path))


def test_a_label_map_whose_0_is_white_is_refused(files):
    path = files.write(files.tiff(files.tiff_page(labels(), _262=0)))
    with pytest.raises(ImageError, match="grey whose 0 is white"):
        read_grey(path)


def test_a_label_map_that_was_cut_off_is_refused(files):
    content = files.palette_png(labels(), COLOURS)
    for end in (40, len(content) // 2, len(content) - 5):
        with pytest.raises(ImageError, match=r"cut off|corrupt"):
            read_grey(files.write(content[:end]))
