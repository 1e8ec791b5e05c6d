"""Files whose pixels are hardly packed: Netpbm's PBM, PGM and PPM, and BMP.

Netpbm's are read here: decoders disagree about ranges other than 0 to 255.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from icnet_deploy.formats.header import CORRUPT, CUT, Header, Unreadable, unpack

PNM_STARTS = tuple(b"P%d" % number for number in range(1, 7))

_BLANK = rb"(?:\s|#[^\n\r]*[\n\r])"
_NUMBER = _BLANK + rb"+(\d{1,9})"
# Width, height and, but for bitmaps, the largest value.
_HEAD = re.compile(rb"P(?:([14])|[2356])" + 2 * _NUMBER + rb"(?(1)|" + _NUMBER + rb")")
_BMP_BITS = {1, 2, 4, 8, 16, 24, 32}
_NEXT = re.compile(rb"\s*(?=P[1-6]\s)")


@dataclass(frozen=True)
class _Head:
    kind: int
    height: int
    width: int
    most: int  # the largest value
    start: int  # of the pixels

    @property
    def channels(self) -> int:
        return 3 if self.kind in (3, 6) else 1

    @property
    def length(self) -> int:
        """Of the pixels of a binary file, in bytes."""
        if self.kind == 4:
            return (self.width + 7) // 8 * self.height
        return self.height * self.width * self.channels * (1 + (self.most > 255))


def read_pnm(content: bytes) -> Header:
    """The header; `pictures` counts those that follow each other in a binary file."""
    head = _head(content, 0)
    return Header(
        "PNM",
        head.height,
        head.width,
        pictures=sum(1 for _ in pnm_pictures(content)),
        depth=16 if head.most > 255 else 8,
        colours="colour" if head.channels == 3 else "grey",
    )


def pnm_pictures(content: bytes) -> Iterator[int]:
    """Yields where each picture starts."""
    start = 0
    while True:
        yield start
        head = _head(content, start)
        behind = _NEXT.match(content, head.start + head.length) if head.kind > 3 else None
        if behind is None:
            return
        start = behind.end()


def pnm_samples(content: bytes) -> tuple[npt.NDArray[np.uint8 | np.uint16], int]:
    """Reads the values of the first picture as they stand in the file.

    Returns:
        uint8 or uint16, H x W or H x W x 3, RGB, and the largest value of the range; a PBM's 1 is
        black.

    Raises:
        Unreadable: there are too few, or one is none.
    """
    head = _head(content, 0)
    count = head.height * head.width * head.channels
    if head.kind > 3 and len(content) < head.start + head.length:
        raise Unreadable(CUT)
    values: npt.NDArray[np.uint8 | np.uint16]
    if head.kind < 4:
        values = _plain(content[head.start :], head.kind, count)
    elif head.kind == 4:
        rows = np.frombuffer(content, np.uint8, head.length, head.start).reshape(head.height, -1)
        values = np.unpackbits(rows, axis=1)[:, : head.width].ravel()
    elif head.most > 255:
        values = np.frombuffer(content, ">u2", count, head.start).astype(np.uint16)
    else:
        values = np.frombuffer(content, np.uint8, count, head.start)
    if head.most not in (255, 65535) and int(values.max(initial=0)) > head.most:
        raise Unreadable(f"holds the value {values.max()}; its header says {head.most} at most")
    shape = (head.height, head.width, 3) if head.channels == 3 else (head.height, head.width)
    return values.reshape(shape), head.most


def _plain(content: bytes, kind: int, count: int) -> npt.NDArray[np.uint16]:
    """Reads values that are written as words, a PBM's as digits that blanks need not part."""
    text = re.sub(rb"#[^\n\r]*", b" ", content)
    words = text.split(None, count)[:count]
    if kind == 1:
        words = [b"%c" % digit for digit in b"".join(text.split())[:count]]
    try:
        values = np.array([int(word) for word in words], np.uint16)
    except (ValueError, OverflowError) as error:
        raise Unreadable(CORRUPT.format("one of its values is no number")) from error
    if values.size < count:
        raise Unreadable(CUT)
    return values


def _head(content: bytes, start: int) -> _Head:
    found = _HEAD.match(content, start)
    if found is None:
        raise Unreadable(CUT)
    width, height, most = (int(digits or 1) for digits in found.group(2, 3, 4))
    if not 0 < most < 65536:
        raise Unreadable(f"says that its largest value is {most}; expected 1 to 65535")
    return _Head(int(content[start + 1 : start + 2]), height, width, most, found.end() + 1)


def read_bmp(content: bytes) -> Header:
    """The header of a BMP, whose pixels are all there unless they are packed."""
    start, kind = unpack("<II", content, 10)
    width, height, bits, packing = unpack("<Ii2xHI", content, 18)
    if kind == 12:  # the oldest header
        width, height, bits, packing = *unpack("<HH2xH", content, 18), 0
    if bits not in _BMP_BITS:
        raise Unreadable(CORRUPT.format(f"it says that a pixel has {bits} bits"))
    height = abs(height)  # negative: from the top down
    packed = packing not in (0, 3)
    # Runs may end early, and the rest is then of the first colour: the header says how many.
    [packed_end] = unpack("<I", content, 2)
    if len(content) < (packed_end if packed else start + _bmp_row(width, bits) * height):
        raise Unreadable(CUT)
    colours = "colour" if bits > 8 else "packed" if packed else "palette"
    return Header("BMP", height, width, depth=min(bits, 8), colours=colours)


def bmp_indices(content: bytes, header: Header) -> npt.NDArray[np.uint8]:
    """The palette's indices of a BMP of up to 8 bits: uint8 H x W."""
    row = _bmp_row(header.width, header.depth)
    start, kind = unpack("<II", content, 10)
    rows = np.frombuffer(content, np.uint8, row * header.height, start).reshape(-1, row)
    if header.depth < 8:
        bits = np.unpackbits(rows, axis=1).reshape(header.height, -1, header.depth)
        rows = np.packbits(bits, axis=2)[:, :, 0] >> np.uint8(8 - header.depth)
    down = kind > 12 and unpack("<i", content, 22)[0] < 0
    return np.ascontiguousarray((rows if down else rows[::-1])[:, : header.width])


def _bmp_row(width: int, bits: int) -> int:
    return (width * bits + 31) // 32 * 4
