"""Files of chunks that say their kind and length: PNG, WebP, GIF, JPEG 2000, AVIF.

Their headers, and whether all chunks are there (PNG specification, third edition; RFC 9649; GIF89a;
ISO/IEC 15444-1; AVIF's are Pillow's to read).
"""

import zlib
from collections.abc import Iterator

from icnet_deploy.formats.header import (
    CORRUPT,
    CUT,
    Header,
    Unreadable,
    exif_orientation,
    unpack,
)

PNG_START = b"\x89PNG\r\n\x1a\n"
GIF_STARTS = (b"GIF87a", b"GIF89a")
JP2_STARTS = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")

_COLOURS = {0: "grey", 2: "colour", 3: "palette", 4: "grey", 6: "colour"}
_WITH_ALPHA = {4, 6}
HDR = {16, 18}  # the transfer functions of PQ and HLG in ITU-T H.273
NEEDS_TONES = "is an HDR picture (PQ or HLG), which needs tone mapping: convert it"


def read_png(content: bytes) -> Header:
    """The header; `pictures` counts what an animation shows."""
    chunks: dict[bytes, bytes] = {}
    frames = 0
    for kind, start, end in _png_chunks(content):
        frames += kind == b"fcTL"
        if kind != b"IDAT":
            chunks.setdefault(kind, content[start:end])
    header = chunks.get(b"IHDR", b"")
    if len(header) != 13 or header[9] not in _COLOURS:
        raise Unreadable(CORRUPT.format("its header is none"))
    width, height, depth, colours = unpack(">IIBB", header)
    pictures = int.from_bytes(chunks.get(b"acTL", b"\0\0\0\1")[:4])
    if b"acTL" in chunks and pictures != frames:
        raise Unreadable(f"was cut off: it has {frames} of {pictures} frames")
    if HDR.intersection(chunks.get(b"cICP", b"")[1:2]):
        raise Unreadable(NEEDS_TONES)
    significant = chunks.get(b"sBIT", b"")
    if colours in _WITH_ALPHA:
        significant = significant[:-1]
    return Header(
        "PNG",
        height,
        width,
        orientation=exif_orientation(chunks.get(b"eXIf", b"")),
        pictures=pictures,
        depth=depth,
        significant=max(significant) if significant and depth == 16 else None,
        colours=_COLOURS[colours],
    )


def check_png(content: bytes) -> None:
    """Compares every chunk with its checksum. That all rows are there only decoding tells."""
    for kind, start, end in _png_chunks(content):
        expected = int.from_bytes(content[end : end + 4])
        if zlib.crc32(memoryview(content)[start - 4 : end]) != expected:
            name = kind.decode("latin-1")
            raise Unreadable(CORRUPT.format(f"the checksum of its chunk {name} is wrong"))


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields (kind, begin, end) of each chunk's data, up to the last."""
    at, kind = len(PNG_START), b""
    while kind != b"IEND":
        length, kind = unpack(">I4s", content, at)
        end = at + 8 + length
        if end + 4 > len(content):
            raise Unreadable(CUT)
        yield kind, at + 8, end
        at = end + 4


def is_webp(content: bytes) -> bool:
    """Whether the bytes begin as a WebP file does."""
    return content[:4] == b"RIFF" and content[8:12] == b"WEBP"


def is_animation(content: bytes) -> bool:
    """Whether it is a WebP file that says that it is an animation, be it of one frame."""
    return is_webp(content) and content[12:16] == b"VP8X" and bool(content[20] & 2)


def read_webp(content: bytes) -> Header:
    """The header; `pictures` counts the frames of an animation."""
    size: tuple[int, int] | None = None
    orientation, frames = 1, 0
    for kind, start, end in _webp_chunks(content):
        data = content[start:end] if kind == b"EXIF" else content[start : min(end, start + 10)]
        if kind == b"EXIF":
            orientation = exif_orientation(data)
        elif kind == b"ANMF":
            frames += 1
        elif size is None and kind == b"VP8X":
            size = (_little(data[7:10]) + 1, _little(data[4:7]) + 1)
        elif size is None and kind == b"VP8 ":
            size = (_little(data[8:10]) & 0x3FFF, _little(data[6:8]) & 0x3FFF)
        elif size is None and kind == b"VP8L":
            bits = _little(data[1:5])
            size = ((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
    if size is None:
        raise Unreadable(CORRUPT.format("its header is none"))
    return Header("WebP", *size, orientation=orientation, pictures=max(frames, 1))


def _webp_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields (kind, begin, end) of each chunk's data."""
    [length] = unpack("<I", content, 4)
    at, whole = 12, 8 + length
    if whole > len(content):
        raise Unreadable(CUT)
    while at + 8 <= whole:
        kind, length = unpack("<4sI", content, at)
        end = at + 8 + length
        if end > whole:
            raise Unreadable(CUT)
        yield kind, at + 8, end
        at = end + end % 2


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


def read_gif(content: bytes) -> Header:
    """The header; `pictures` counts the frames.

    Raises:
        Unreadable: the file ends before its last block.
    """
    width, height, flags = unpack("<HHB2x", content, 6)
    frames, at = 0, 13 + _gif_palette(flags)
    while (kind := content[at : at + 1]) != b";":
        if kind == b"!":
            at = _gif_behind(content, at + 2)
        elif kind == b",":
            [flags] = unpack("B", content, at + 9)
            at = _gif_behind(content, at + 11 + _gif_palette(flags))
            frames += 1
        else:
            why = CORRUPT.format("one of its blocks is of no known kind") if kind else CUT
            raise Unreadable(why)
    if not frames:
        raise Unreadable(CORRUPT.format("it holds no picture"))
    return Header("GIF", height, width, pictures=frames, colours="palette")


def _gif_palette(flags: int) -> int:
    """The length of the palette that follows, in bytes."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _gif_behind(content: bytes, at: int) -> int:
    """The position behind a chain of blocks that say their lengths."""
    while at < len(content):
        length = content[at]
        at += 1 + length
        if not length:
            return at
    raise Unreadable(CUT)


def read_jp2(content: bytes) -> Header:
    """The header of a JPEG 2000 file or codestream (ISO/IEC 15444-1, A.5.1 and I.4)."""
    start, end = 0, len(content)
    if content.startswith(JP2_STARTS[0]):
        at = 0
        length, kind = unpack(">I4s", content)
        while kind != b"jp2c":
            if length < 8:
                raise Unreadable(CUT)
            at += length
            length, kind = unpack(">I4s", content, at)
        start = at + 8
        if length == 1:
            [length], start = unpack(">Q", content, at + 8), at + 16
        end = at + length if length else end
    if end > len(content) or end < start + 45 or content[end - 2 : end] != b"\xff\xd9":
        raise Unreadable(CUT)
    right, bottom, left, top, count = unpack(">4I16xH", content, start + 8)
    precisions = {bits + 1 for bits in content[start + 42 : start + 42 + 3 * count : 3]}
    bits = max(precisions, default=0)
    if len(precisions) != 1 or bits > 16:
        raise Unreadable("has samples of several kinds, or of more than 16 bits: convert it")
    depth = 16 if bits > 8 else 8
    return Header("JPEG 2000", bottom - top, right - left, depth=depth, significant=bits)


def is_avif(content: bytes) -> bool:
    """Whether the bytes begin as an AVIF picture or sequence does."""
    brands = content[8 : int.from_bytes(content[:4])] if content[4:8] == b"ftyp" else b""
    return any(brands[i : i + 4] in (b"avif", b"avis") for i in range(0, min(len(brands), 256), 4))
