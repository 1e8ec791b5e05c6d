"""What a picture's file says of itself: the parts that every format has in its own way."""

import struct
from dataclasses import dataclass
from typing import Any

CUT = "was cut off, its end is missing: copy or download it again"
CORRUPT = "is corrupt: {}; copy or export it again"


class Unreadable(Exception):
    """Why a file is no picture that can be read; the text goes on after the file's name."""


@dataclass(frozen=True)
class Header:
    """One picture's header.

    Attributes:
        kind: the format, as `images` names it.
        height, width: of the stored pixels, before the orientation.
        orientation: EXIF's, 1 to 8; 1 where the file has none.
        pictures: how many pictures or frames the file holds.
        depth: bits of a stored sample: 1 to 8, or 16.
        significant: how many of 16 bits the file says are used; None where it says nothing.
        colours: the samples are "grey", "palette" or "colour"; where they are hard to come by,
            "inverted" (grey whose 0 is white) or "packed" (a palette's, in runs).
        page: which of a TIFF's directories it is, from 0.
    """

    kind: str
    height: int
    width: int
    orientation: int = 1
    pictures: int = 1
    depth: int = 8
    significant: int | None = None
    colours: str = "colour"
    page: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as a viewer shows it, turned."""
        sides = (self.height, self.width)
        return sides if self.orientation < 5 else sides[::-1]


def unpack(layout: str, content: bytes, at: int = 0) -> tuple[Any, ...]:
    """`struct.unpack_from`; Unreadable if the bytes end before."""
    try:
        return struct.unpack_from(layout, content, at)
    except (struct.error, OverflowError) as error:
        raise Unreadable(CUT) from error


def exif_orientation(block: bytes) -> int:
    """The orientation, 1 to 8, of an EXIF block; 1 if it has none, or none that can be read.

    EXIF 3.0, 4.6: the block is a small TIFF file; tag 274 of its first directory is a SHORT.
    """
    block = block.removeprefix(b"Exif\0\0")
    if block[:4] not in (b"II*\0", b"MM\0*"):
        return 1
    order = "<" if block[:1] == b"I" else ">"
    try:
        [directory] = unpack(order + "I", block, 4)
        [entries] = unpack(order + "H", block, directory)
        for at in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind = unpack(order + "HH", block, at)
            if tag == 274:
                [value] = unpack(order + ("I" if kind == 4 else "H"), block, at + 8)
                return value if 1 <= value <= 8 else 1
    except Unreadable:
        pass
    return 1
