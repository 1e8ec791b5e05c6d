"""Bytes between the packets of a file that are nothing which belongs there: what damage leaves.

Demuxers of FFmpeg go on behind such bytes and say nothing, and decoders draw what follows from
frames that are missing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Step = Callable[[bytes, int], tuple[int, int] | None]
"""Of the element that begins at a place: where its data begin, and the next element; None: it is
none."""

_HOLDERS = {bytes.fromhex(kind) for kind in ("18538067", "1f43b675", "a0")}
"""Matroska's elements that hold a packet's: a segment, a cluster, a block group."""

_BLOCKS = {b"\xa3", b"\xa1"}

_LEAVES = _BLOCKS | {
    bytes.fromhex(kind)
    for kind in (
        *("e7", "a7", "ab", "5854", "af"),  # what a cluster holds
        *("75a1", "9b", "fa", "fb", "fd", "a4", "75a2", "8e", "c8"),  # what a block group holds
        *("ec", "bf"),  # nothing, and a checksum
        *("114d9b74", "1549a966", "1654ae6b", "1c53bb6b", "1941a469", "1043a770", "1254c367"),
    )
}
"""Matroska's other elements between two packets; the last line's are a segment's own."""


class Holes:
    """Looks for holes in Matroska, AVI and FLV files; FFmpeg marks the packets of other formats.

    Args:
        path: the file.
        form: the names of its format, of FFmpeg.
    """

    def __init__(self, path: Path, form: frozenset[str]) -> None:
        self._path = path
        self._format = next((name for name in _FORMATS if name in form), None)
        self._start: int | None = None
        self._end = 0

    def before(self, packet: Any) -> bool:
        """Whether a hole stands right before a packet; of each packet it is asked once."""
        start, end = self._start, self._end
        if packet.pos is None or self._format is None:
            return False
        if packet.pos == start:  # one of several in a block
            self._end += packet.size
            return False
        self._start, self._end = packet.pos, packet.pos + packet.size
        step, starts = _FORMATS[self._format]
        if start is None or packet.pos - end < starts.stop:
            return False
        with self._path.open("rb") as file:
            file.seek(end)
            between = file.read(packet.pos - end)
        return not any(_are_elements(between, step, start) for start in starts)


def _are_elements(data: bytes, step: Step, at: int) -> bool:
    """Whether bytes are elements one after another from a place on, and maybe a last one's head."""
    while at < len(data):
        element = step(data, at)
        if element is None:
            return False
        begins, at = element
        if begins == len(data):
            return True
    return at == len(data)


def _matroska(data: bytes, at: int) -> tuple[int, int] | None:
    """RFC 8794, 4 to 6, and RFC 9559, 5."""
    kind = data[at : at + _length(data[at])]
    width = _length(data[at + len(kind)]) if at + len(kind) < len(data) else 0
    begins = at + len(kind) + width
    if kind in _HOLDERS:
        return begins, begins
    if kind not in _LEAVES or not width:
        return None
    if kind in _BLOCKS and begins < len(data):  # FFmpeg has gone past a packet
        return None
    size = int.from_bytes(data[begins - width : begins]) & ((1 << 7 * width) - 1)
    return begins, begins + size


def _length(first: int) -> int:
    """How many bytes a number has that begins with this one; 0: it is none."""
    return 9 - first.bit_length()


def _avi(data: bytes, at: int) -> tuple[int, int] | None:
    kind, begins = data[at : at + 4], at + 8
    if not kind.rstrip(b" ").isalnum() or begins > len(data):
        return None
    if kind in (b"RIFF", b"LIST"):
        return begins + 4, begins + 4
    size = int.from_bytes(data[at + 4 : begins], "little")
    if size and kind.endswith((b"dc", b"db", b"wb")) and begins < len(data):
        return None  # FFmpeg has gone past a packet; one without data is a frame that is not there
    return begins, begins + size + size % 2


def _flv(data: bytes, at: int) -> tuple[int, int] | None:
    if data[at] not in (8, 9, 18) or at + 11 > len(data):  # sound, picture, text
        return None
    size = int.from_bytes(data[at + 1 : at + 4])
    return at + 11, at + 11 + size + 4


_FORMATS: dict[str, tuple[Step, range]] = {
    # FFmpeg's position of a packet is before some bytes of its header, so that the position and its
    # size are short of its end: in Matroska by 4 or more, in FLV by 12 to 20 and 4 behind the data.
    "matroska": (_matroska, range(4, 64)),
    "avi": (_avi, range(10)),
    "flv": (_flv, range(12, 25)),
}
"""How to find the next element, and how many bytes behind a packet the first may begin. What is not
longer than these is no hole."""
