"""TIFF: the directories of its pages, and whether what they point at is in the file."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from icnet_deploy.formats import jpeg
from icnet_deploy.formats.header import CORRUPT, CUT, Header, Unreadable, unpack

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_LETTERS = dict(zip((1, 2, 6, 7, 3, 8, 4, 9, 13, 16, 17, 18), "BBBBHHIIIQQQ", strict=True))
"""The types of whole numbers, as `struct` knows them."""

_WANTED = {254, 255, 256, 257, 258, 259, 262, 273, 274, 279, 281, 324, 325, 339, 347}
_MOST_ENTRIES = 1 << 20
"""Of all directories of a file; one has 10 to 40."""

_JPEG = 7
_DEFLATE = {8, 32946}
_KINDS = {0: "grey", 1: "grey", 2: "colour", 3: "palette", 6: "colour"}


@dataclass(frozen=True)
class _Page:
    """One directory: its values by tag, and where each entry's value stands."""

    order: str  # as `struct` has it
    values: dict[int, tuple[int, ...]] = field(default_factory=dict)
    at: dict[int, int] = field(default_factory=dict)

    def first(self, tag: int, default: int) -> int:
        return (self.values.get(tag) or (default,))[0]

    @property
    def reduced(self) -> bool:
        """It is a thumbnail or mask of another page (tags 254 and, older, 255)."""
        return bool(self.first(254, 0) & 5) or self.first(255, 0) == 2


def read(content: bytes) -> Header:
    """The header of the first page that is no thumbnail; `pictures` counts such pages."""
    first, *others = pages(content)
    return page(content, first, 1 + len(others))


def pages(content: bytes) -> list[int]:
    """The numbers, from 0, of the directories that are pictures of their own."""
    numbers = [number for number, one in enumerate(_directories(content)) if not one.reduced]
    return numbers or [0]


def page(content: bytes, number: int, pictures: int = 1) -> Header:
    """The header of one page.

    Raises:
        Unreadable: its samples are no whole numbers of 1 to 8 or 16 bits, grey or RGB.
    """
    one = list(_directories(content))[number]
    kind, bits = one.first(262, 1), one.values.get(258, (1,))
    if kind not in _KINDS:
        names = {5: "in CMYK", 8: "in CIE L*a*b*", 32803: "a camera's raw data"}
        raise Unreadable(f"is {names.get(kind, f'of the photometric kind {kind}')}: convert to RGB")
    kinds = {1: "", 2: "signed ", 3: "floating-point "}
    sample = kinds.get(one.first(339, 1), "unknown ")
    if sample or len(set(bits)) != 1 or bits[0] not in (1, 2, 4, 8, 12, 16):
        raise Unreadable(
            f"holds {sample}samples of {'/'.join(map(str, bits))} bits; expected whole numbers of "
            "1 to 8 or 16 bits, from 0 up: convert it to 8 bits"
        )
    largest = max(one.values.get(281, (0,))[: 3 if kind == 2 else 1])  # alpha's does not matter
    orientation = one.first(274, 1)
    return Header(
        "TIFF",
        height=one.first(257, 0),
        width=one.first(256, 0),
        orientation=orientation if 1 <= orientation <= 8 else 1,
        pictures=pictures,
        depth=16 if bits[0] > 8 else bits[0],
        significant=12 if bits[0] == 12 else largest.bit_length() or None,
        colours=_KINDS[kind] if kind else "inverted",
        page=number,
    )


def upright(content: bytes, number: int) -> bytes:
    """The same file, its page's orientation 1: decoders differ in whether they turn it."""
    one = list(_directories(content))[number]
    if 274 not in one.at:
        return content
    at = one.at[274]
    return content[:at] + struct.pack(f"{one.order}H", 1) + content[at + 2 :]


def check(content: bytes) -> None:
    """Looks whether all strips or tiles are in the file, and those of Deflate and JPEG whole.

    Raises:
        Unreadable: the file was cut off or is corrupt.
    """
    for one in _directories(content):
        offsets = one.values.get(273) or one.values.get(324) or ()
        lengths = one.values.get(279) or one.values.get(325) or ()
        if not offsets or len(offsets) != len(lengths):
            raise Unreadable(CORRUPT.format("it does not say where its pixels are"))
        for offset, length in zip(offsets, lengths, strict=True):
            if offset + length > len(content):
                raise Unreadable(CUT)
            strip = content[offset : offset + length]
            if one.first(259, 1) in _DEFLATE:
                _unpack(strip)
            elif one.first(259, 1) == _JPEG:  # the tables stand apart, between a start and an end
                tables = bytes(value & 255 for value in one.values.get(347, ()))
                jpeg.check(tables[:-2] + strip[2:] if tables else strip)


def _unpack(data: bytes) -> None:
    """Unpacks a strip for the sake of the checksum at its end, which decoders leave unread."""
    reader = zlib.decompressobj()
    try:
        while data and not reader.eof:
            reader.decompress(data, 1 << 20)
            data = reader.unconsumed_tail
    except zlib.error as error:
        raise Unreadable(CORRUPT.format("its pixels do not unpack")) from error
    if not reader.eof:
        raise Unreadable(CUT)


def _directories(content: bytes) -> Iterator[_Page]:
    """Yields the pages' directories (TIFF 6.0, section 2, and BigTIFF's wider fields)."""
    order = "<" if content[:2] == b"II" else ">"
    big = content[2:4] in (b"+\0", b"\0+")
    wide, letter, counter = (8, "Q", "Q") if big else (4, "I", "H")
    head, entry = struct.calcsize(counter), 4 + 2 * wide
    seen: set[int] = set()
    entries = 0
    [directory] = unpack(order + letter, content, wide)
    while directory and directory not in seen:
        seen.add(directory)
        page = _Page(order)
        [count] = unpack(order + counter, content, directory)
        entries += count
        if entries > _MOST_ENTRIES:  # directories may overlap: a small file can hold any number
            raise Unreadable(CORRUPT.format("it says that it has a million entries"))
        end = directory + head + entry * count
        for at in range(directory + head, end, entry):
            tag, kind, items, place = unpack(f"{order}HH{letter}{letter}", content, at)
            if tag not in _WANTED or kind not in _LETTERS:
                continue
            if struct.calcsize(_LETTERS[kind]) * items <= wide:  # it stands in the entry
                place = at + 4 + wide
            page.values[tag] = unpack(f"{order}{items}{_LETTERS[kind]}", content, place)
            page.at[tag] = place
        yield page
        [directory] = unpack(order + letter, content, end)
    if not seen:
        raise Unreadable(CORRUPT.format("it holds no picture"))
