"""BMP, JPEG 2000 and AVIF: their headers."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.formats.header import CUT, Header, Unreadable, exif_orientation

JP2_STARTS = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")

_HDR = {16, 18}  # the transfer functions of PQ and HLG in ITU-T H.273


def read_bmp(content: bytes) -> Header:
    """The header of a BMP, whose pixels are all there unless they are packed."""
    if len(content) < 30:
        raise Unreadable(CUT)
    start, old = _little(content, 10, 4), _little(content, 14, 4) == 12
    at, length = (18, 2) if old else (18, 4)
    width, height = _little(content, at, length), _little(content, at + length, length)
    if not old and height >= 1 << 31:  # negative: from the top down
        height = (1 << 32) - height
    bits = _little(content, at + 2 * length + 2, 2)
    packed = not old and _little(content, 30, 4) not in (0, 3)
    # Runs may end early, and the rest is then of the first colour: the header says how many.
    if len(content) < (
        _little(content, 2, 4) if packed else start + _bmp_row(width, bits) * height
    ):
        raise Unreadable(CUT)
    colours = "colour" if bits > 8 else "packed" if packed else "palette"
    return Header("BMP", height, width, depth=min(bits, 8), colours=colours)


def bmp_indices(content: bytes, header: Header) -> npt.NDArray[np.uint8]:
    """The palette's indices of a BMP of up to 8 bits: uint8 H x W."""
    row = _bmp_row(header.width, header.depth)
    start = _little(content, 10, 4)
    rows = np.frombuffer(content, np.uint8, row * header.height, start).reshape(-1, row)
    if header.depth < 8:
        bits = np.unpackbits(rows, axis=1).reshape(header.height, -1, header.depth)
        rows = np.packbits(bits, axis=2)[:, :, 0] >> np.uint8(8 - header.depth)
    down = _little(content, 14, 4) > 12 and _little(content, 22, 4) >= 1 << 31
    return np.ascontiguousarray((rows if down else rows[::-1])[:, : header.width])


def read_jp2(content: bytes) -> Header:
    """The header of a JPEG 2000 file or codestream (ISO/IEC 15444-1, A.5.1 and I.4)."""
    start, end = 0, len(content)
    if content.startswith(JP2_STARTS[0]):
        at = 0
        while content[at + 4 : at + 8] != b"jp2c":
            length = int.from_bytes(content[at : at + 4])
            if length < 8 or at + length + 8 > len(content):
                raise Unreadable(CUT)
            at += length
        length, start = int.from_bytes(content[at : at + 4]), at + 8
        if length == 1:
            length, start = int.from_bytes(content[at + 8 : at + 16]), at + 16
        end = at + length if length else end
    if end > len(content) or end < start + 45 or content[end - 2 : end] != b"\xff\xd9":
        raise Unreadable(CUT)
    right, bottom, left, top = (
        int.from_bytes(content[start + 8 + 4 * i : start + 12 + 4 * i]) for i in range(4)
    )
    count = int.from_bytes(content[start + 40 : start + 42])
    precisions = {content[start + 42 + 3 * i] + 1 for i in range(count)}
    bits = max(precisions, default=0)
    if len(precisions) != 1 or bits > 16:
        raise Unreadable("has samples of several kinds, or of more than 16 bits: convert it")
    depth = 16 if bits > 8 else 8
    return Header("JPEG 2000", bottom - top, right - left, depth=depth, significant=bits)


def is_avif(content: bytes) -> bool:
    """Whether the bytes begin as an AVIF picture or sequence does."""
    brands = content[8 : int.from_bytes(content[:4])] if content[4:8] == b"ftyp" else b""
    return any(brands[i : i + 4] in (b"avif", b"avis") for i in range(0, min(len(brands), 256), 4))


def open_avif(content: bytes) -> Any:
    """Pillow's reader of an AVIF file."""
    from PIL import features
    from PIL.AvifImagePlugin import AvifImageFile

    if not features.check("avif"):
        raise Unreadable("is an AVIF file, which this Pillow was built without: convert it to PNG")
    try:
        return AvifImageFile(io.BytesIO(content))
    except (SyntaxError, ValueError, OSError) as error:
        raise Unreadable(CUT.replace("was", "is corrupt, or was")) from error


def read_avif(content: bytes) -> Header:
    """The header of an AVIF file; `pictures` counts a sequence's frames."""
    image = open_avif(content)
    profile = content.find(b"colrnclx")
    if profile > 0 and int.from_bytes(content[profile + 10 : profile + 12]) in _HDR:
        raise Unreadable("is an HDR picture (PQ or HLG), which needs tone mapping: convert it")
    # Pillow gives the file's own turns and mirrors (irot, imir) as EXIF's orientation.
    orientation = exif_orientation(image.info.get("exif", b""))
    width, height = image.size
    return Header("AVIF", height, width, orientation, pictures=image.n_frames)


def _bmp_row(width: int, bits: int) -> int:
    return (width * bits + 31) // 32 * 4


def _little(content: bytes, at: int, length: int) -> int:
    return int.from_bytes(content[at : at + length], "little")
