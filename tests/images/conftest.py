"""Builders of image files, small ones, also of kinds that no library writes."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

EXIF = 274


def picture(height=48, width=64):
    """A smooth picture that no mirror, turn or change of channels leaves equal."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 3, y * 2, 255 - x - y], axis=2).astype(np.uint8)


def by_opencv(suffix, image=None, *options):
    """Encodes uint8 or uint16, grey, RGB or RGBA."""
    image = picture() if image is None else image
    if image.ndim == 3:
        image = image[:, :, [2, 1, 0, 3][: image.shape[2]]]
    ok, data = cv2.imencode(suffix, image, list(options))
    assert ok
    return data.tobytes()


def by_pillow(kind, image=None, mode=None, **options):
    """Encodes an array or Pillow's own image."""
    image = Image.fromarray(picture() if image is None else image, mode) if not isinstance(
        image, Image.Image
    ) else image  # fmt: skip
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def exif(orientation):
    block = Image.Exif()
    block[EXIF] = orientation
    return block.tobytes()


def png_chunks(content):
    at, found = 8, []
    while at < len(content):
        length = int.from_bytes(content[at : at + 4])
        found.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def png_of(chunks):
    """A PNG of (kind, data) with right checksums."""
    parts = [
        len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def with_chunk(content, kind, data):
    """The PNG with one more chunk, behind the header."""
    chunks = png_chunks(content)
    return png_of([chunks[0], (kind, data), *chunks[1:]])


def grey_png(values, bits):
    """A grey PNG of 1, 2, 4, 8 or 16 bits a sample, or (`palette`) of indices."""
    height, width = values.shape
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in values]
    else:
        cells = (values[:, :, None] >> np.arange(bits)[::-1] & 1).reshape(height, -1)
        rows = [np.packbits(row.astype(np.uint8)).tobytes() for row in cells]
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return png_of([(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")])


def palette_png(indices, colours, bits=8, transparent=None):
    """A PNG with a palette, of 1, 2, 4 or 8 bits."""
    chunks = png_chunks(grey_png(indices, bits))
    header = bytearray(chunks[0][1])
    header[9] = 3
    more = [(b"PLTE", np.asarray(colours, np.uint8).tobytes())]
    if transparent is not None:
        more.append((b"tRNS", bytes(transparent)))
    return png_of([(b"IHDR", bytes(header)), *more, *chunks[1:]])


def tiff(*pages, order="<"):
    """A TIFF of one strip a page; each a dict of tags to values, `pixels` its bytes."""
    content = (b"II*\0" if order == "<" else b"MM\0*") + bytes(4)
    link = 4
    for tags in pages:
        tags = dict(tags)
        pixels = tags.pop("pixels")
        tags |= {273: len(content), 279: len(pixels)}
        content += pixels + b"\0" * (len(pixels) % 2)
        entries = b""
        for tag, value in sorted(tags.items()):
            values = value if isinstance(value, tuple) else (value,)
            kind, code = (4, "I") if tag in (254, 273, 279) else (3, "H")
            packed = struct.pack(f"{order}{len(values)}{code}", *values)
            if len(packed) > 4:
                place = struct.pack(order + "I", len(content))
                content, packed = content + packed + b"\0" * (len(packed) % 2), place
            entries += struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
        content = content[:link] + struct.pack(order + "I", len(content)) + content[link + 4 :]
        content += struct.pack(order + "H", len(tags)) + entries
        link = len(content)
        content += bytes(4)
    return content


def tiff_page(values, order="<", **more):
    """The tags of an uncompressed page of uint8 or uint16, grey or RGB."""
    bits = values.dtype.itemsize * 8
    channels = values.shape[2] if values.ndim == 3 else 1
    pixels = values.astype(values.dtype.newbyteorder(order)).tobytes()
    tags = {256: values.shape[1], 257: values.shape[0], 258: (bits,) * channels, 259: 1,
            262: 2 if channels == 3 else 1, 277: channels, 278: values.shape[0]}  # fmt: skip
    return tags | {int(key[1:]): value for key, value in more.items()} | {"pixels": pixels}


class Files:
    """The builders, for tests, which cannot import this file."""

    picture = staticmethod(picture)
    by_opencv = staticmethod(by_opencv)
    by_pillow = staticmethod(by_pillow)
    exif = staticmethod(exif)
    png_chunks = staticmethod(png_chunks)
    png_of = staticmethod(png_of)
    with_chunk = staticmethod(with_chunk)
    grey_png = staticmethod(grey_png)
    palette_png = staticmethod(palette_png)
    tiff = staticmethod(tiff)
    tiff_page = staticmethod(tiff_page)

    def __init__(self, folder):
        self.folder = folder

    def write(self, content, name="image"):
        path = self.folder / name
        path.write_bytes(content)
        return path


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)
