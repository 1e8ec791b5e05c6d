"""What was cut off or changed on its way is refused, whatever the decoders make of it."""

import ctypes
import zlib
from contextlib import suppress

import cv2
import numpy as np
import pytest

from icnet_deploy.errors import ImageError
from icnet_deploy.formats import jpeg
from icnet_deploy.images import ImageFile, read_grey, read_image

END = b"\xff\xd9"
JPEGS = {
    "baseline": (),
    "progressive": (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts": (cv2.IMWRITE_JPEG_RST_INTERVAL, 5),
    "4:4:4": (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    "4:1:1": (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411),
    "optimized": (cv2.IMWRITE_JPEG_OPTIMIZE, 1),
}


def noisy(height=120, width=150):
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).normal(0, 12, (height, width, 3))
    smooth = np.stack([x, y * 1.5, (x + y) / 2], axis=2)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


@pytest.fixture(params=["codes", "plain"])
def reader(request, monkeypatch):
    """With the compiled reader of a JPEG's codes, and without."""

    def fail(path):
        raise OSError(f"{path} does not load")

    if request.param == "plain":
        monkeypatch.setattr(ctypes, "CDLL", fail)
        jpeg._reader.cache_clear()
    elif jpeg._reader() is None:
        pytest.skip("no C compiler worked at the installation")
    yield request.param
    jpeg._reader.cache_clear()


def refused(files, content):
    with pytest.raises(ImageError) as caught:
        read_image(files.write(content))
    return str(caught.value)


@pytest.mark.parametrize("kind", JPEGS)
def test_a_whole_jpeg_is_read(kind, files, reader):
    for size in ((1, 1), (8, 8), (17, 31), (120, 150)):
        for image in (noisy(*size), noisy(*size)[:, :, 0]):
            content = files.by_opencv(".jpg", image, *JPEGS[kind])
            expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
            assert np.array_equal(read_image(files.write(content)), expected[:, :, ::-1])


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_that_ends_early_is_refused(kind, files, reader):
    content = files.by_opencv(".jpg", noisy(), *JPEGS[kind])
    for end in [*range(0, len(content) - 1, len(content) // 23), len(content) - 1]:
        assert "cut off" in refused(files, content[:end]) or end < 3


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_that_was_cut_off_and_closed_is_refused(kind, files):
    """Decoders fill the rest with grey, say so on stderr at most, and succeed."""
    if jpeg._reader() is None:
        pytest.skip("no C compiler worked at the installation")
    content = files.by_opencv(".jpg", noisy(), *JPEGS[kind])
    first = content.index(b"\xff\xda") + 14
    for end in range(first, len(content) - 12, len(content) // 23):
        assert "cut off" in refused(files, content[:end] + END) or content[end - 1] == 0xFF


def test_a_jpeg_that_lacks_an_interval_is_refused(files, reader):
    content = files.by_opencv(".jpg", noisy(), *JPEGS["restarts"])
    second, third = content.index(b"\xff\xd1"), content.index(b"\xff\xd2")
    assert "cut off" in refused(files, content[:second] + content[third:])


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_with_a_hole_or_zeros_of_a_bad_disk_is_refused(kind, files):
    if jpeg._reader() is None:
        pytest.skip("no C compiler worked at the installation")
    content = files.by_opencv(".jpg", noisy(), *JPEGS[kind])
    middle = len(content) // 2
    refused(files, content[:middle] + content[middle + 512 :])
    refused(files, content[:middle] + bytes(512) + content[middle + 512 :])


def test_a_progressive_jpeg_that_lacks_scans_is_refused(files):
    """Each scan is whole, so that only the coefficients that never came tell."""
    if jpeg._reader() is None:
        pytest.skip("no C compiler worked at the installation")
    content = files.by_opencv(".jpg", noisy(), *JPEGS["progressive"])
    scans = [i for i in range(len(content) - 1) if content[i : i + 2] == b"\xff\xda"]
    tables = [content.rfind(b"\xff\xc4", 0, scan) for scan in scans]
    assert len(scans) > 5
    for scan, table in zip(scans[1:], tables[1:], strict=True):
        before = table if table > scans[0] and scan - table < 300 else scan
        assert "cut off" in refused(files, content[:before] + END)


def test_random_changes_of_a_jpeg_never_crash(files):
    random = np.random.default_rng(1)
    for kind in JPEGS.values():
        content = files.by_opencv(".jpg", noisy(40, 50), *kind)
        for _ in range(60):
            changed = bytearray(content)
            for place in random.integers(2, len(content), random.integers(1, 6)):
                changed[place] = random.integers(256)
            with suppress(ImageError):
                assert read_image(files.write(bytes(changed))).ndim == 3


def test_padding_and_what_follows_a_jpeg_do_no_harm(files, reader):
    content = files.by_opencv(".jpg", noisy())
    expected = read_image(files.write(content))
    for more in (b"\0" * 7, b"\xff" * 5, b"trailer", b"\0\0\0\x18ftypmp42" + bytes(99)):
        assert np.array_equal(read_image(files.write(content + more)), expected)
    filled = content[:-2] + b"\xff\xff" + content[-2:]  # fill bytes before a marker (B.1.1.2)
    assert np.array_equal(read_image(files.write(filled)), expected)


def test_an_arithmetic_jpeg_is_left_to_the_decoder(files):
    """Its codes are not Huffman's: only its end is looked for."""
    frame = b"\xff\xc9\0\x0b\x08\0\x08\0\x08\x01\x01\x11\0"
    content = b"\xff\xd8" + frame + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0"
    jpeg.check(content + b"codes" + END)
    assert "cut off" in refused(files, content + b"codes")


def png_parts(files):
    chunks = files.png_chunks(files.by_opencv(".png", noisy()))
    packed = b"".join(data for kind, data in chunks if kind == b"IDAT")
    return chunks[0], packed


def test_a_png_of_right_checksums_that_lacks_rows_is_refused(files):
    header, packed = png_parts(files)
    rows = zlib.decompress(packed)
    for lacking in (
        packed[: len(packed) // 2],
        zlib.compress(rows[: len(rows) // 2]),
        zlib.compress(rows[:-1]),
        packed[:-4],
        packed[:-1] + bytes([packed[-1] ^ 1]),
        b"",
    ):
        content = files.png_of([header, (b"IDAT", lacking), (b"IEND", b"")])
        assert "cut off or is corrupt" in refused(files, content)


@pytest.mark.parametrize("chunk", [b"IHDR", b"IDAT", b"tEXt", b"IEND"])
def test_a_png_with_a_wrong_checksum_is_refused(chunk, files, capfd):
    content = files.with_chunk(files.by_opencv(".png"), b"tEXt", b"a\0b")
    at = content.index(chunk)
    content = content[: at + 7] + bytes([content[at + 7] ^ 4]) + content[at + 8 :]
    assert f"the checksum of its chunk {chunk.decode()} is wrong" in refused(files, content)
    assert capfd.readouterr().err == ""


TIFFS = ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"]
BUILDERS = {
    "png": lambda files: files.by_opencv(".png", noisy()),
    "bmp": lambda files: files.by_opencv(".bmp", noisy()),
    "ppm": lambda files: files.by_opencv(".ppm", noisy()),
    "pgm": lambda files: files.by_opencv(".pgm", noisy()[:, :, 0]),
    "webp": lambda files: files.by_opencv(".webp", noisy()),
    "webp lossless": lambda files: files.by_pillow("WEBP", noisy(), lossless=True),
    "jp2": lambda files: files.by_pillow("JPEG2000", noisy()),
    "gif": lambda files: files.by_pillow("GIF", noisy()),
    "avif": lambda files: files.by_pillow("AVIF", noisy()),
    **{
        f"tiff {name}": lambda files, name=name: files.by_pillow("TIFF", noisy(), compression=name)
        for name in TIFFS
    },
    "tiff big endian": lambda files: files.tiff(files.tiff_page(noisy(), ">"), order=">"),
    "tiff 16": lambda files: files.tiff(files.tiff_page(noisy().astype(np.uint16) * 257)),
    "plain ppm": lambda files: b"P3 2 2 255\n" + b" 200" * 12,
}


@pytest.mark.parametrize("name", BUILDERS)
def test_every_format_that_was_cut_off_is_refused(name, files):
    content = BUILDERS[name](files)
    assert read_image(files.write(content)).ndim == 3
    for end in [*range(0, len(content) - 1, len(content) // 11 + 1), len(content) - 4]:
        message = refused(files, content[:end])
        assert "cut off" in message or "not an image" in message or "corrupt" in message


@pytest.mark.parametrize("name", BUILDERS)
def test_random_changes_of_any_format_never_crash(name, files):
    random = np.random.default_rng(2)
    content = BUILDERS[name](files)
    for number in range(40):
        changed = bytearray(content)
        last = len(content) if number % 2 else min(80, len(content))  # every other in the header
        for place in random.integers(0, last, random.integers(1, 4)):
            changed[place] = random.choice((0, 255, random.integers(256)))
        path = files.write(bytes(changed))
        for read in (read_image, read_grey, lambda path: list(ImageFile(path).frames())):
            with suppress(ImageError):
                read(path)


@pytest.mark.parametrize("name", ["tiff tiff_lzw", "tiff tiff_adobe_deflate", "tiff jpeg"])
def test_a_tiff_with_zeros_in_its_strips_is_refused(name, files):
    content = BUILDERS[name](files)
    middle = len(content) // 2
    refused(files, content[:middle] + bytes(400) + content[middle + 400 :])


def test_a_webp_whose_sizes_were_mended_is_refused(files):
    for name in ("webp", "webp lossless"):
        half = BUILDERS[name](files)
        half = half[: len(half) // 2]
        lengths = [(len(half) - drop).to_bytes(4, "little") for drop in (8, 20)]
        refused(files, b"RIFF" + lengths[0] + half[8:16] + lengths[1] + half[20:])


def test_a_gif_whose_last_block_was_written_after_a_cut_is_refused(files):
    content = BUILDERS["gif"](files)
    start = 13 + 768 + content[13 + 768 :].index(b",") + 11
    length = content[start]
    assert length == 255
    refused(files, content[: start + 1 + length] + b"\0;")


def test_it_is_said_what_is_looked_for(reader):
    """Without a compiler less is found: `icnet doctor` says so."""
    made, why = jpeg.kind()
    assert made == {"codes": "compiled", "plain": "plain"}[reader]
    assert ("every code" in why) == (reader == "codes")
    assert ("install a C compiler" in why) == (reader == "plain")


def test_a_packed_bmp_is_whole_as_its_header_says(files):
    """Its runs may end early, so that no decoder can tell."""
    values = np.repeat(np.arange(16, dtype=np.uint8)[:, None], 20, axis=1)
    runs = b"".join(bytes([20, row]) + b"\0\0" for row in range(15, -1, -1))
    palette = b"".join(bytes([i, i, i, 0]) for i in range(256))
    fields = [(40, 4), (20, 4), (16, 4), (1, 2), (8, 2), (1, 4)] + [(0, 4)] * 5

    def bmp(content):
        size = (54 + 1024 + len(runs) + 2).to_bytes(4, "little")
        head = b"BM" + size + bytes(4) + (54 + 1024).to_bytes(4, "little")
        head += b"".join(value.to_bytes(length, "little") for value, length in fields)
        return head + palette + content + b"\0\1"

    assert np.array_equal(read_image(files.write(bmp(runs)))[:, :, 0], values)
    assert "cut off" in refused(files, bmp(runs[:40]))


def test_a_header_that_promises_too_much_is_refused_before_decoding(files):
    huge = files.with_chunk(files.by_opencv(".png"), b"tEXt", b"a\0b")
    header = (1 << 20).to_bytes(4) * 2 + files.png_chunks(huge)[0][1][8:]
    content = files.png_of([(b"IHDR", header), *files.png_chunks(huge)[1:]])
    assert "expected 1 to" in refused(files, content)
