"""WebP: its header and its chunks (RFC 9649)."""

from __future__ import annotations

from collections.abc import Iterator

from icnet_deploy.formats.header import CORRUPT, CUT, Header, Unreadable, exif_orientation


def is_webp(content: bytes) -> bool:
    """Whether the bytes begin as a WebP file does."""
    return content[:4] == b"RIFF" and content[8:12] == b"WEBP"


def is_animation(content: bytes) -> bool:
    """Whether a WebP file says that it is an animation, be it of one frame."""
    return content[12:16] == b"VP8X" and bool(content[20] & 2)


def read(content: bytes) -> Header:
    """The header; `pictures` counts the frames of an animation."""
    size: tuple[int, int] | None = None
    orientation, frames = 1, 0
    for kind, start, end in _chunks(content):
        data = content[start:end] if kind == b"EXIF" else content[start : min(end, start + 10)]
        if kind == b"EXIF":
            orientation = exif_orientation(data)
        elif kind == b"ANMF":
            frames += 1
        elif size is None and kind == b"VP8X":
            size = (_number(data[7:10]) + 1, _number(data[4:7]) + 1)
        elif size is None and kind == b"VP8 ":
            size = (_number(data[8:10]) & 0x3FFF, _number(data[6:8]) & 0x3FFF)
        elif size is None and kind == b"VP8L":
            bits = _number(data[1:5])
            size = ((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
    if size is None:
        raise Unreadable(CORRUPT.format("its header is none"))
    return Header("WebP", *size, orientation=orientation, pictures=max(frames, 1))


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields (kind, begin, end) of each chunk's data."""
    whole = 8 + _number(content[4:8])
    if whole > len(content):
        raise Unreadable(CUT)
    at = 12
    while at + 8 <= whole:
        end = at + 8 + _number(content[at + 4 : at + 8])
        if end > whole:
            raise Unreadable(CUT)
        yield content[at : at + 4], at + 8, end
        at = end + end % 2


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")
