"""How large a picture may say that it is before memory is taken for it."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from icnet_deploy.errors import ImageError, InputError
from icnet_deploy.formats import tiff
from icnet_deploy.formats.decode import LIMIT
from icnet_deploy.images import ImageFile, read_grey, read_image, write_image


def chunk(kind, data):
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def png(side, colour=2):
    """A black PNG of side x side pixels, sound in every byte."""
    row = b"\0" * (1 + side * (3 if colour == 2 else 1))
    packed = zlib.compressobj(9)
    data = b"".join(packed.compress(row) for _ in range(side)) + packed.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("read", [read_image, read_grey, lambda path: ImageFile(path).size()])
def test_a_small_file_of_a_huge_picture_is_refused_before_memory_is_taken(tmp_path, read):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(10001, colour=0))
    assert path.stat().st_size < 200_000
    tracemalloc.start()
    try:
        message = (
            r"10001x10001, 100 megapixels; expected at most 100: .*set ICNET_MAX_MEGAPIXELS=101"
        )
        with pytest.raises(ImageError, match=message):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_the_limit_can_be_raised_and_lowered(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    write_image(path, np.zeros((100, 200, 3), np.uint8))
    monkeypatch.setenv(LIMIT, "0.02")
    assert read_image(path).shape == (100, 200, 3)
    monkeypatch.setenv(LIMIT, "0.0199")
    with pytest.raises(ImageError, match=r"expected at most 0\.0199"):
        read_image(path)


@pytest.mark.parametrize("value", ["much", "0", "-1", "nan", "inf", "1e305"])
def test_a_limit_that_is_none_is_said(tmp_path, monkeypatch, value):
    path = tmp_path / "picture.png"
    write_image(path, np.zeros((4, 4, 3), np.uint8))
    monkeypatch.setenv(LIMIT, value)
    with pytest.raises(InputError, match=f"{LIMIT} is '{value}'; expected a number of megapixels"):
        read_image(path)


def test_a_page_is_held_to_the_limit_by_its_own_header(tmp_path, monkeypatch):
    pages = [Image.new("L", size) for size in ((8, 8), (64, 64))]
    path = tmp_path / "pages.tiff"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    monkeypatch.setenv(LIMIT, "0.001")
    frames = ImageFile(path).frames()
    assert next(frames)[0].shape == (8, 8, 3)
    with pytest.raises(ImageError, match="64x64"):
        next(frames)


def test_a_frame_of_a_gif_is_held_to_the_limit(tmp_path, monkeypatch):
    """Its frames may be larger than the screen that its header tells of."""
    buffer = io.BytesIO()
    frames = [Image.fromarray(np.full((64, 64), grey, np.uint8)) for grey in (0, 255)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    content = bytearray(buffer.getvalue())
    content[6:10] = struct.pack("<HH", 8, 8)
    path = tmp_path / "frames.gif"
    path.write_bytes(content)
    monkeypatch.setenv(LIMIT, "0.001")
    with pytest.raises(ImageError):
        list(ImageFile(path).frames())


def test_directories_that_share_their_bytes_are_counted(tmp_path):
    """Each of these is another start in the same million bytes, with 60,000 entries."""
    count, starts = 60_000, range(8, 8 + 2 * 400, 2)
    content = bytearray(1 << 20)
    content[:8] = struct.pack("<2sHI", b"II", 42, starts[0])
    for start in starts:
        content[start : start + 2] = struct.pack("<H", count)
    for start, following in zip(starts, [*starts[1:], 0], strict=True):
        end = start + 2 + 12 * count
        content[end : end + 4] = struct.pack("<I", following)
    path = tmp_path / "shared.tiff"
    path.write_bytes(content)
    with pytest.raises(ImageError):
        ImageFile(path)


def test_tables_of_a_jpeg_in_a_tiff_that_are_no_bytes_are_refused(tmp_path):
    """Tag 347 as numbers of 16 bits."""
    picture = Image.fromarray(np.zeros((16, 16, 3), np.uint8))
    picture.save(tmp_path / "good.tiff", compression="jpeg")
    content = (tmp_path / "good.tiff").read_bytes()
    entry = content.index(struct.pack("<HH", 347, 7))
    length = int.from_bytes(content[entry + 4 : entry + 8], "little")
    path = tmp_path / "numbers.tiff"
    path.write_bytes(
        content[:entry] + struct.pack("<HHI", 347, 3, length // 2) + content[entry + 8 :]
    )
    with pytest.raises(ImageError):
        read_image(path)


def test_pages_are_unpacked_once(tmp_path, monkeypatch):
    """Of a file of n pages each was looked at n times."""
    pages = [Image.fromarray(np.full((8, 8), grey, np.uint8)) for grey in range(6)]
    path = tmp_path / "pages.tiff"
    pages[0].save(path, save_all=True, append_images=pages[1:], compression="tiff_deflate")
    seen = []
    unpack = tiff._unpack
    monkeypatch.setattr(tiff, "_unpack", lambda data: (seen.append(data), unpack(data)))
    assert len(list(ImageFile(path).frames())) == 6
    assert len(seen) == 6
