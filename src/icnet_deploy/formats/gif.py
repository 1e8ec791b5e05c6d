"""GIF: its header and its blocks (GIF89a)."""

from __future__ import annotations

from icnet_deploy.formats.header import CORRUPT, CUT, Header, Unreadable

STARTS = (b"GIF87a", b"GIF89a")


def read(content: bytes) -> Header:
    """The header; `pictures` counts the frames.

    Raises:
        Unreadable: the file ends before its last block.
    """
    if len(content) < 13:
        raise Unreadable(CUT)
    width = int.from_bytes(content[6:8], "little")
    height = int.from_bytes(content[8:10], "little")
    frames, at = 0, 13 + _palette(content[10])
    while True:
        kind = content[at : at + 1]
        if kind == b";":
            break
        if kind == b"!":
            at = _skip(content, at + 2)
        elif kind == b",":
            if at + 10 > len(content):
                raise Unreadable(CUT)
            at = _skip(content, at + 11 + _palette(content[at + 9]))
            frames += 1
        elif kind:
            raise Unreadable(CORRUPT.format("one of its blocks is of no known kind"))
        else:
            raise Unreadable(CUT)
    if not frames:
        raise Unreadable(CORRUPT.format("it holds no picture"))
    return Header("GIF", height, width, pictures=frames, colours="palette")


def _palette(flags: int) -> int:
    """The length of the palette that follows, in bytes."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _skip(content: bytes, at: int) -> int:
    """The position behind a chain of blocks that say their lengths."""
    while at < len(content):
        length = content[at]
        at += 1 + length
        if not length:
            return at
    raise Unreadable(CUT)
