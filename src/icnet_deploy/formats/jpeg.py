"""JPEG: its header, the pictures that follow each other, and whether the codes are whole."""

import ctypes
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from os.path import isfile
from pathlib import Path
from typing import Any

from icnet_deploy.formats.header import CORRUPT, CUT, Header, Unreadable, exif_orientation, unpack

_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD9)}
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_NEXT = re.compile(rb"[\x00\xff]*?(?=\xff\xd8\xff)")  # padding between two pictures
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")

_WHOLE, _CUT, _CORRUPT, _UNKNOWN = range(4)  # as native/jpeg.c has them


def read(content: bytes) -> Header:
    """The header of the first picture; `pictures` counts those that follow it.

    A camera puts its gain map, depth or preview behind the picture: that is no further picture.
    It says so in an index (CIPA DC-007) or in XMP, or the file has EXIF and what follows is
    smaller.
    """
    first, has_exif, attached = _first(content, 0)
    if attached:
        return first
    count = 0
    for start in pictures(content):
        try:
            other = _first(content, start)[0]
            preview = has_exif and other.height * other.width < first.height * first.width
        except Unreadable:  # it is another picture all the same: reading it says what is wrong
            preview = False
        count += not preview
    return replace(first, pictures=count)


def pictures(content: bytes) -> Iterator[int]:
    """Yields where each of the JPEGs starts that follow each other directly."""
    start = 0
    while True:
        yield start
        codes = _codes(content, start)
        behind = codes and _NEXT.match(content, codes[1])
        if not behind:
            return
        start = behind.end()


def check(content: bytes) -> None:
    """Reads the codes of the first picture.

    Without the compiled reader only its end and its restart markers are looked for.

    Raises:
        Unreadable: it was cut off, or is corrupt as far as the codes can tell: a changed bit
            often gives the codes of another picture, which are as good.
    """
    reader = _reader()
    state = reader and reader(content, len(content), ctypes.byref(ctypes.c_size_t()))
    if state in (None, _UNKNOWN):
        state = _state_without_codes(content)
    if state == _CUT:
        raise Unreadable(CUT)
    if state == _CORRUPT:
        raise Unreadable(CORRUPT.format("its codes are not those of a JPEG"))


def kind() -> tuple[str, str]:
    """How it is found out whether a JPEG is whole, `compiled` or `plain`, and why."""
    if _reader() is not None:
        return "compiled", "every code of a JPEG is read"
    return "plain", (
        "only the end and the restart markers of a JPEG are checked, so one that was cut off and "
        "closed again is not noticed: jpeg.c is not compiled, or is older than its Python; install "
        "a C compiler such as gcc, then install icnet-deploy again"
    )


def _first(content: bytes, start: int) -> tuple[Header, bool, bool]:
    """One picture's header, whether it has EXIF, and whether it says what is attached to it."""
    height = width = samples = 0
    orientation, has_exif, attached = 1, False, False
    for marker, begin, end in _segments(content, start):
        segment = content[begin:end]
        if marker == 0xE1 and segment.startswith(b"Exif\0\0") and not has_exif:
            orientation, has_exif = exif_orientation(segment), True
        attached |= marker == 0xE2 and segment.startswith(b"MPF\0")
        attached |= marker == 0xE1 and b"ns.google.com/photos/1.0/container" in segment
        if marker in _FRAMES and len(segment) >= 6:
            bits, height, width, samples = unpack(">BHHB", segment)
            if bits != 8:
                raise Unreadable(f"has {bits} bits a sample: convert it to 8 bits")
    if not height or not width:
        raise Unreadable(CUT)
    if samples == 4:
        raise Unreadable(
            "is in CMYK, whose colours depend on a printer's profile: convert it to RGB"
        )
    return Header("JPEG", height, width, orientation), has_exif, attached


def _segments(content: bytes, start: int) -> Iterator[tuple[int, int, int]]:
    """Yields (marker, begin, end) of a picture's segments, its first scan's header the last."""
    at = start
    while (found := _MARKER.search(content, at)) is not None:
        marker, at = found[1][0], found.end()
        if marker in _ALONE:
            continue
        end = at + int.from_bytes(content[at : at + 2])
        if marker == 0xD9 or end < at + 2 or end > len(content):
            break
        yield marker, at + 2, end
        if marker == 0xDA:
            return
        at = end
    raise Unreadable(CUT)


def _codes(content: bytes, start: int) -> tuple[int, int] | None:
    """Where a picture's codes begin, and the position behind its end; None if it has none."""
    try:
        *_, (_, _, begin) = _segments(content, start)
    except Unreadable:
        return None
    end = content.find(b"\xff\xd9", begin)  # no code holds these two bytes
    return (begin, end + 2) if end >= 0 else None


def _state_without_codes(content: bytes) -> int:
    """Whether there is an end, and restart markers that count from 0 to 7 again and again."""
    codes = _codes(content, 0)
    if codes is None:
        return _CUT
    expected = 0
    for marker in _RESTART.finditer(content, *codes):
        number = marker[1][0] - 0xD0
        if number not in (0, expected % 8):  # each scan begins with 0
            return _CUT
        expected = number + 1
    return _WHOLE


@cache
def _reader() -> Any:
    """The compiled function, or None: no compiler worked at the installation."""
    folder = Path(__file__).parents[1] / "native"
    for path in filter(isfile, (folder / f"jpeg{end}" for end in EXTENSION_SUFFIXES)):
        try:
            function = ctypes.CDLL(str(path)).icnet_jpeg_state_1
        except (OSError, AttributeError):  # it does not load, or is older than this file
            return None
        function.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_size_t)]
        function.restype = ctypes.c_int
        return function
    return None
