"""Reading, checking, resizing and writing images. OpenCV, imported when first used."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import ImageError
from icnet_deploy.files import replacing

__all__ = [
    "IMAGE_SUFFIXES",
    "check_image",
    "count_pictures",
    "read_grey",
    "read_image",
    "read_pictures",
    "resize_image",
    "resize_labels",
    "write_image",
    "write_labels",
]

UInt8 = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})
"""The suffixes that a folder is searched for."""

_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


def read_image(path: str | Path) -> UInt8:
    """Decodes an image file to uint8 H x W x 3, RGB, 0..255.

    Raises:
        ImageError: there is no such file, or it is not a whole image.
    """
    import cv2

    image = _decode(path, cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image))


def read_grey(path: str | Path) -> UInt8:
    """Decodes an 8-bit single-channel file, such as a label map, to uint8 H x W, unchanged.

    Raises:
        ImageError: as `read_image`, or the file has several channels or more than 8 bits.
    """
    import cv2

    array = _decode(path, cv2.IMREAD_UNCHANGED)
    if array.ndim != 2 or array.dtype != np.uint8:
        raise ImageError(
            f"{path} holds {array.dtype} of shape {array.shape}; expected one 8-bit channel"
        )
    return array


def count_pictures(path: str | Path) -> int:
    """How many pictures or frames an image file holds; 1 for what is a single picture.

    Raises:
        ImageError: there is no such file, or it is not an image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return int(getattr(image, "n_frames", 1)) if image.format != "MPO" else 1
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise ImageError(f"{path} is not an image that can be decoded: {error}") from error


def read_pictures(path: str | Path) -> Iterator[tuple[UInt8, float | None]]:
    """Yields each picture or frame of an image file as a viewer shows it, and for how long.

    Yields:
        uint8 H x W x 3, RGB, and its duration in seconds, None where the file states none.

    Raises:
        ImageError: there is no such file, it is not an image, or it was cut off.
    """
    from PIL import Image, ImageSequence

    try:
        with Image.open(path) as image:
            for frame in ImageSequence.Iterator(image):
                rgb = np.asarray(frame.convert("RGBA"))[:, :, :3]
                milliseconds = float(frame.info.get("duration", 0))
                yield np.ascontiguousarray(rgb), milliseconds / 1000 or None
    except (OSError, SyntaxError) as error:
        raise ImageError(f"{path} is not an image that can be decoded: {error}") from error


def _decode(path: str | Path, flag: int) -> UInt8:
    import cv2

    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise ImageError(f"cannot read the image {path}: {error.strerror or error}") from error
    content = data.tobytes()
    if content.startswith(_PNG_START) and _PNG_END not in content:
        # Before libpng sees it, which writes a line of its own on stderr.
        raise ImageError(f"the image {path} was cut off: its end is missing")
    try:
        array: Any = cv2.imdecode(data, flag) if data.size else None
    except cv2.error:
        array = None
    if array is None:
        raise ImageError(f"{path} is not an image that can be decoded ({data.size} bytes)")
    return np.asarray(array)


def check_image(image: Any) -> UInt8:
    """Returns the array if it is what `Predictor.predict` takes: uint8, H x W x 3.

    Raises:
        ImageError: another type, dtype or shape.
    """
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f"an image is a numpy array, uint8, H x W x 3, RGB; got {type(image).__name__}"
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ImageError(
            f"an image is uint8, H x W x 3, RGB, 0..255; got {image.dtype} of shape {image.shape}"
        )
    return image


def resize_image(image: UInt8, size: tuple[int, int]) -> UInt8:
    """Resizes uint8 H x W x 3 bilinearly to (height, width), staying uint8, as ICNet's authors do.

    Returns the same array when it has that size already.
    """
    if image.shape[:2] == tuple(size):
        return image
    import cv2

    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def resize_labels(labels: UInt8, size: tuple[int, int]) -> UInt8:
    """Resizes a label map, uint8 H x W, to (height, width) by nearest neighbour."""
    if labels.shape == tuple(size):
        return labels
    import cv2

    return np.asarray(
        cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.uint8
    )


def write_image(path: str | Path, image: UInt8) -> None:
    """Writes uint8 H x W x 3, RGB, in the format of the suffix (`.png`, `.jpg`)."""
    import cv2

    _encode(path, np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)))


def write_labels(path: str | Path, labels: UInt8, palette: UInt8 | None = None) -> None:
    """Writes a label map, uint8 H x W, as an 8-bit PNG.

    Args:
        path: the file, `.png`.
        labels: uint8 H x W.
        palette: uint8 256 x 3, RGB: the colour that the PNG shows for each value; None: a
            single-channel PNG of the values, which `read_grey` reads back.
    """
    _encode(path, labels, palette)


def _encode(path: str | Path, array: UInt8, palette: UInt8 | None = None) -> None:
    import cv2

    path = Path(path)
    try:
        ok, data = cv2.imencode(path.suffix, np.ascontiguousarray(array))
    except cv2.error:
        ok = False
    if not ok:
        raise ImageError(f"cannot encode {path}: the suffix names no known image format")
    content = data.tobytes() if palette is None else _indexed(data.tobytes(), palette)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _indexed(png: bytes, palette: UInt8) -> bytes:
    """Makes an 8-bit grey PNG one of a palette, whose pixels are the same bytes.

    OpenCV writes none itself. PNG specification, third edition, 11.2.1 and 11.2.2: the header is
    the first chunk, its tenth byte the colour type (3: palette), and the palette follows it.
    """
    header = bytearray(png[16:29])
    header[9] = 3
    chunks = [(b"IHDR", bytes(header)), (b"PLTE", palette.tobytes())]
    new = [
        len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)
        for kind, data in chunks
    ]
    return b"".join([_PNG_START, *new, png[33:]])
