"""PNG: its header, its chunks and their checksums (the PNG specification, third edition)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from icnet_deploy.formats.header import CORRUPT, CUT, Header, Unreadable, exif_orientation

START = b"\x89PNG\r\n\x1a\n"

_COLOURS = {0: "grey", 2: "colour", 3: "palette", 4: "grey", 6: "colour"}
_WITH_ALPHA = {4, 6}
_HDR = {16, 18}  # the transfer functions of PQ and HLG in ITU-T H.273


def read(content: bytes) -> Header:
    """The header; `pictures` counts what an animation shows."""
    chunks: dict[bytes, bytes] = {}
    frames = 0
    for kind, start, end in _chunks(content):
        frames += kind == b"fcTL"
        if kind != b"IDAT":
            chunks.setdefault(kind, content[start:end])
    header = chunks.get(b"IHDR", b"")
    if len(header) != 13 or header[9] not in _COLOURS:
        raise Unreadable(CORRUPT.format("its header is none"))
    pictures = int.from_bytes(chunks.get(b"acTL", b"\0\0\0\1")[:4])
    if b"acTL" in chunks and pictures != frames:
        raise Unreadable(f"was cut off: it has {frames} of {pictures} frames")
    if chunks.get(b"cICP", b"\0\0")[1] in _HDR:
        raise Unreadable("is an HDR picture (PQ or HLG), which needs tone mapping: convert it")
    significant = chunks.get(b"sBIT", b"")
    if header[9] in _WITH_ALPHA:
        significant = significant[:-1]
    return Header(
        "PNG",
        height=int.from_bytes(header[4:8]),
        width=int.from_bytes(header[:4]),
        orientation=exif_orientation(chunks.get(b"eXIf", b"")),
        pictures=pictures,
        depth=header[8],
        significant=max(significant) if significant and header[8] == 16 else None,
        colours=_COLOURS[header[9]],
    )


def check(content: bytes) -> None:
    """Compares every chunk with its checksum. That all rows are there only decoding tells."""
    for kind, start, end in _chunks(content):
        expected = int.from_bytes(content[end : end + 4])
        if zlib.crc32(memoryview(content)[start - 4 : end]) != expected:
            name = kind.decode("latin-1")
            raise Unreadable(CORRUPT.format(f"the checksum of its chunk {name} is wrong"))


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields (kind, begin, end) of each chunk's data, up to the last."""
    at = len(START)
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4])
        kind = content[at + 4 : at + 8]
        if end + 4 > len(content):
            break
        yield kind, at + 8, end
        if kind == b"IEND":
            return
        at = end + 4
    raise Unreadable(CUT)
