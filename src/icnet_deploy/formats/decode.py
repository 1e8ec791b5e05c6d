"""From a picture's bytes to its pixels, as they are stored: not turned.

OpenCV decodes what every version since 4.10 decodes alike and Pillow is no faster at; Pillow
decodes the rest, and whatever is asked for as a palette's indices.
"""

import io
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import InputError
from icnet_deploy.formats import chunks, jpeg, plain, tiff
from icnet_deploy.formats.header import CORRUPT, Header, Unreadable, exif_orientation

_UInt8 = npt.NDArray[np.uint8]

LIMIT = "ICNET_MAX_MEGAPIXELS"
"""An environment variable: the largest picture that is decoded, in millions of pixels."""

_MOST_MEGAPIXELS = 100
_OPENCVS_MOST = 1 << 30
_DARK = 1 << 14
_BRIGHT_SHARE = 1e-3


def header(content: bytes) -> Header:
    """Recognizes the format and reads the header.

    Raises:
        Unreadable: it is no picture of a format that is read, was cut off in its header, or is of
            a kind that has no certain 8-bit RGB.
    """
    for recognized, read in _READERS:
        if recognized(content):
            head = read(content)
            require_room(head.height, head.width)
            return head
    raise Unreadable(
        f"is not an image that can be decoded ({len(content)} bytes); expected JPEG, PNG, WebP, "
        "BMP, TIFF, GIF, AVIF, JPEG 2000, PBM, PGM or PPM: name another file, or convert it"
    )


def require_room(height: int, width: int) -> None:
    """Refuses, before memory is taken for it, what says that it is larger than pictures are.

    A file of a kilobyte can say that it is of any size.

    Raises:
        Unreadable: it has no pixels, or more than `LIMIT` says, or OpenCV takes.
        InputError: `LIMIT` is no number.
    """
    pixels, most = height * width, most_pixels()
    if not 0 < pixels <= _OPENCVS_MOST:
        raise Unreadable(f"says that it is {height}x{width}; expected 1 to {_OPENCVS_MOST} pixels")
    if pixels > most:
        raise Unreadable(
            f"says that it is {height}x{width}, {pixels / 1e6:.0f} megapixels; expected at most "
            f"{most / 1e6:g}: if that is true and there is memory for it, set "
            f"{LIMIT}={-(-pixels // 10**6)}"
        )


def most_pixels() -> int:
    """How many pixels a picture may have; InputError if `LIMIT` is no number."""
    text = os.environ.get(LIMIT, "")
    try:
        most = float(text or _MOST_MEGAPIXELS)
    except ValueError:
        most = math.nan
    if not 0 < most * 1e6 < math.inf:
        raise InputError(f"{LIMIT} is {text!r}; expected a number of megapixels above 0")
    return round(most * 1e6)


def check(content: bytes, head: Header) -> None:
    """Looks for what decoders let pass: what was cut off or changed."""
    checks = {"JPEG": jpeg.check, "PNG": chunks.check_png, "TIFF": tiff.check}
    if head.kind in checks:
        checks[head.kind](content)


def rgb(content: bytes, head: Header) -> _UInt8:
    """The only, or first, picture: uint8 H x W x 3, RGB, as stored; a new array."""
    if head.kind == "TIFF":
        pixels = _tiff(content, head)
    elif head.kind == "PNM":
        pixels = _pnm(content)
    elif head.kind in ("GIF", "AVIF") or chunks.is_animation(content):  # of one frame
        pixels = _pillow(_open(content, head.kind))
    else:
        pixels = _opencv(content, head)
    if pixels.shape != (head.height, head.width, 3):
        raise Unreadable(CORRUPT.format("its pixels are not those of its header"))
    return pixels


def indices(content: bytes, head: Header) -> _UInt8:
    """The samples of a grey picture or the indices of one with a palette, uint8 H x W, as stored.

    Raises:
        Unreadable: the picture is in colours, or a value exceeds 255.
    """
    if head.colours not in ("grey", "palette"):
        kinds = {"inverted": "is grey whose 0 is white", "packed": "has packed pixels"}
        raise Unreadable(
            f"{kinds.get(head.colours, 'is in colours')}; expected one 8-bit channel of class "
            "indices, or a palette: convert it"
        )
    if head.kind == "PNM":
        values, _ = plain.pnm_samples(content)
    elif head.kind == "BMP":
        return plain.bmp_indices(content, head)
    else:
        values = _loaded(_open(content, head.kind, head.page))
        if values.ndim == 3:  # grey with alpha
            if head.depth == 16:
                raise Unreadable("holds 16 bits with alpha; expected one 8-bit channel: convert it")
            values = values[:, :, 0]
        elif head.colours == "grey" and head.depth in (2, 4):  # Pillow stretches them to 0..255
            values = values // (255 // ((1 << head.depth) - 1))
    largest = int(values.max(initial=0))
    if largest > 255:
        raise Unreadable(
            f"holds values up to {largest}; expected one 8-bit channel of class indices, 0 to 255 "
            "(values above may be instance ids): convert it"
        )
    return np.ascontiguousarray(values, np.uint8)


def pages(content: bytes, head: Header) -> Iterator[tuple[bytes, Header]]:
    """Yields the bytes and header of each picture that is a file of its own inside the file."""
    if head.kind == "TIFF":
        for number in tiff.pages(content):
            page = tiff.page(content, number)
            require_room(page.height, page.width)
            yield content, page
        return
    starts = [*(jpeg.pictures if head.kind == "JPEG" else plain.pnm_pictures)(content)]
    for start, end in zip(starts, [*starts[1:], len(content)], strict=True):
        part = content[start:end]
        yield part, header(part)


def frames(content: bytes, head: Header) -> Iterator[tuple[_UInt8, float | None]]:
    """Yields the frames of an animation, composited, and how long each is shown, in seconds."""
    image = _open(content, head.kind, head.page)
    first = 1 if getattr(image, "default_image", False) else 0  # shown where nothing can move
    for number in range(first, first + head.pictures):
        with _broken_as("was cut off or is corrupt: {}"):
            try:
                image.seek(number)
            except EOFError as error:
                had = f"was cut off: it has {number} of {head.pictures} frames"
                raise Unreadable(had) from error
        require_room(image.height, image.width)  # a frame of a GIF can be larger than its header
        pixels = _pillow(image)
        milliseconds = float(image.info.get("duration", 0))
        if head.kind == "GIF" and milliseconds <= 10:
            milliseconds = 100.0  # as every browser shows it
        yield pixels, milliseconds / 1000 or None


def _opencv(content: bytes, head: Header) -> _UInt8:
    import cv2

    deep = head.depth == 16
    flag = cv2.IMREAD_UNCHANGED if deep else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels: Any = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise Unreadable(f"was cut off or is corrupt: its {head.kind} pixels cannot be decoded")
    if deep:
        colours = pixels[:, :, :3] if pixels.ndim == 3 else pixels  # alpha is of any range
        pixels = _to_8_bits(np.ascontiguousarray(colours), head.significant)
    if pixels.ndim == 2:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    else:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
    return np.asarray(pixels)


def _pnm(content: bytes) -> _UInt8:
    values, most = plain.pnm_samples(content)
    bits = most.bit_length()
    if most == 1 and content[1:2] in b"14":
        pixels = np.where(values, np.uint8(0), np.uint8(255))
    elif most == 255:
        pixels = values.astype(np.uint8)
    elif most > 255 and most == (1 << bits) - 1:
        pixels = _to_8_bits(values.astype(np.uint16), bits)
    else:
        pixels = ((values.astype(np.uint32) * 255 + most // 2) // most).astype(np.uint8)
    return np.ascontiguousarray(
        pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
    )


def _tiff(content: bytes, head: Header) -> _UInt8:
    image = _open(content, head.kind, head.page)
    if head.depth < 16:
        return _pillow(image)
    values = _loaded(image)  # of RGB only the upper bytes, but it tells whether they are whole
    if head.colours == "inverted":
        raise Unreadable("is grey whose 0 is white, in 16 bits: convert it to 8 bits")
    if head.colours == "grey" and values.ndim == 2:
        pixels = _to_8_bits(values.astype(np.uint16), head.significant)
        return np.repeat(pixels[:, :, None], 3, axis=2)
    if head.page:
        raise Unreadable("has pages of 16-bit colour: convert it to 8 bits")
    return _opencv(tiff.upright(content, head.page), head)


def _read_avif(content: bytes) -> Header:
    """The header of an AVIF file; `pictures` counts a sequence's frames."""
    image = _open(content, "AVIF")
    profile = content.find(b"colrnclx")
    if profile > 0 and int.from_bytes(content[profile + 10 : profile + 12]) in chunks.HDR:
        raise Unreadable(chunks.NEEDS_TONES)
    # Pillow gives the file's own turns and mirrors (irot, imir) as EXIF's orientation.
    orientation = exif_orientation(image.info.get("exif", b""))
    width, height = image.size
    return Header("AVIF", height, width, orientation, pictures=image.n_frames)


def _open(content: bytes, kind: str, page: int = 0) -> Any:
    """Pillow's reader, of the right page, nothing decoded yet."""
    from PIL import features

    if kind == "AVIF" and not features.check("avif"):
        raise Unreadable("is an AVIF file, which this Pillow was built without: convert it to PNG")
    name = "WebP" if kind == "WebP" else kind.capitalize()
    reader = getattr(import_module(f"PIL.{name}ImagePlugin"), f"{name}ImageFile")
    if kind == "TIFF":  # Pillow turns a TIFF, and nothing else, when it decodes it
        content = tiff.upright(content, page)
    with _broken_as("is corrupt, was cut off, or is not an image that can be decoded ({})"):
        image = reader(io.BytesIO(content))
        if page:
            image.seek(page)
    image.info.pop("xmp", None)  # in which Pillow looks for an orientation, too
    return image


def _loaded(image: Any) -> npt.NDArray[Any]:
    """Decodes; a new array of what Pillow's mode says."""
    _load(image)
    return np.array(image)


def _load(image: Any) -> None:
    with _broken_as("was cut off or is corrupt: {}"):
        image.load()


@contextmanager
def _broken_as(words: str) -> Iterator[None]:
    """What Pillow says of a file that it cannot read, said in these words."""
    from PIL.Image import DecompressionBombError

    try:
        yield
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        KeyError,
        RuntimeError,
        DecompressionBombError,
    ) as error:
        raise Unreadable(words.format(error)) from error


def _pillow(image: Any) -> _UInt8:
    """Decodes to uint8 H x W x 3, RGB; what is transparent keeps the colour that is stored."""
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"):
        raise Unreadable(f"holds samples of the kind {image.mode}: convert it to 8-bit RGB")
    _load(image)
    mode = "RGBA" if "a" in image.mode.lower() or "transparency" in image.info else "RGB"
    with _broken_as("is corrupt: {}"):
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return np.array(pixels[:, :, :3], np.uint8)


def _to_8_bits(
    values: npt.NDArray[np.uint16], significant: int | None = None
) -> npt.NDArray[np.uint8]:
    """The upper 8 of the bits that are used.

    Args:
        values: uint16 of any shape.
        significant: how many bits the file says are used; None or 16: it says nothing.

    Returns:
        uint8 of the same shape.

    Raises:
        Unreadable: the file says nothing, and not one value in a thousand reaches a quarter of
            the range: cameras of 10, 12 or 14 bits write such files, which would be near black.
    """
    largest = int(values.max(initial=0))
    if significant is None or significant >= 16:
        if largest and np.count_nonzero(values >= _DARK) < _BRIGHT_SHARE * values.size:
            raise Unreadable(
                f"holds 16-bit values of which fewer than 1 in 1,000 exceed {_DARK} (the largest "
                f"is {largest}), and does not say of what range: a camera's 10, 12 or 14 bits "
                "would be read as near black. Convert it to 8 bits, by the range that it has"
            )
        return (values >> 8).astype(np.uint8)
    if largest >= 1 << significant:  # they were brought to 16 bits, as PNG asks for
        return (values >> 8).astype(np.uint8)
    if significant < 8:
        return (values.astype(np.uint32) * 255 // ((1 << significant) - 1)).astype(np.uint8)
    return (values >> (significant - 8)).astype(np.uint8)


_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], Header]], ...] = (
    (lambda content: content.startswith(b"\xff\xd8\xff"), jpeg.read),
    (lambda content: content.startswith(chunks.PNG_START), chunks.read_png),
    (chunks.is_webp, chunks.read_webp),
    (lambda content: content.startswith(b"BM"), plain.read_bmp),
    (lambda content: content.startswith(tiff.STARTS), tiff.read),
    (lambda content: content.startswith(chunks.GIF_STARTS), chunks.read_gif),
    (lambda content: content.startswith(plain.PNM_STARTS), plain.read_pnm),
    (chunks.is_avif, _read_avif),
    (lambda content: content.startswith(chunks.JP2_STARTS), chunks.read_jp2),
)
