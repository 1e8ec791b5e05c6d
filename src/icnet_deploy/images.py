"""Reading, checking, resizing and writing images.

OpenCV and Pillow are imported when first used.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from icnet_deploy.documents import NUMBER, list_of
from icnet_deploy.errors import ImageError, ModelError
from icnet_deploy.files import read_file, replacing
from icnet_deploy.formats import decode
from icnet_deploy.formats.chunks import PNG_START
from icnet_deploy.formats.header import Unreadable

if TYPE_CHECKING:
    from icnet_deploy.metadata import ArtefactMetadata

UInt8 = npt.NDArray[np.uint8]
_THREE = list_of(NUMBER, length=3)

# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".tif", ".tiff",
    ".webp", ".gif", ".avif", ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".ppm", ".pgm", ".pbm",
    ".pnm",
})
# fmt: on
"""The suffixes that a folder is searched for. What a file is, its first bytes say."""


class ImageFile:
    """An image file of which the header was read; nothing is decoded yet.

    Args:
        path: the file.

    Attributes:
        path: the file.
        orientation: EXIF's, 1 to 8: how the stored pixels are to be turned or mirrored to stand
            upright; 1, as they are, where the file says nothing. AVIF's own turns count as it.
        pictures: how many pictures or frames it holds. A thumbnail, a gain map, a depth map and a
            mask belong to their picture and are not counted.
        header: what it says of itself before its pixels.

    Raises:
        ImageError: there is no such file, it is not an image, was cut off, or is of a kind that
            has no certain 8-bit RGB: CMYK, HDR (PQ, HLG), floating point, more than 16 bits.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._content = read_file(self.path)
        except OSError as error:
            raise ImageError(f"cannot read the image {path}: {error.strerror or error}") from error
        with self._naming():
            self.header = decode.header(self._content)
        self.orientation, self.pictures = self.header.orientation, self.header.pictures

    def size(self, turn: bool = True) -> tuple[int, int]:
        """(height, width) of what `rgb` returns."""
        return self.header.size if turn else (self.header.height, self.header.width)

    def rgb(self, turn: bool = True) -> UInt8:
        """Decodes the picture, as `read_image` has it.

        Args:
            turn: apply the orientation; False: the pixels as they are stored.

        Raises:
            ImageError: the file holds several pictures, or is not whole.
        """
        self._require_one()
        with self._naming():
            decode.check(self._content, self.header)
            return _turned(decode.rgb(self._content, self.header), self.orientation * turn)

    def indices(self) -> UInt8:
        """Decodes a label map, as `read_grey` has it."""
        self._require_one()
        self._require_label_map()
        with self._naming():
            decode.check(self._content, self.header)
            return decode.indices(self._content, self.header)

    def colours(self) -> UInt8:
        """Decodes a label map that is drawn in colours to uint8 H x W x 3, RGB.

        Raises:
            ImageError: as `read_image`; or the file has an orientation, or a format that changes
                values, such as JPEG.
        """
        self._require_label_map()
        return self.rgb()

    def frames(self) -> Iterator[tuple[UInt8, float | None]]:
        """Yields each picture or frame as a viewer shows it, and for how long.

        Yields:
            uint8 H x W x 3, RGB, as `read_image` has it, and its duration in seconds; None where
            the file states none.

        Raises:
            ImageError: as `read_image`, or fewer frames are there than the file says.
        """
        header = self.header
        if header.pictures == 1:
            yield self.rgb(), None
            return
        with self._naming():
            decode.check(self._content, header)
            if header.kind in ("GIF", "WebP", "PNG", "AVIF"):
                for pixels, seconds in decode.frames(self._content, header):
                    yield _turned(pixels, header.orientation), seconds
            else:
                for content, part in decode.pages(self._content, header):
                    if content is not self._content:  # which was checked with all its pages
                        decode.check(content, part)
                    yield _turned(decode.rgb(content, part), part.orientation), None

    def _require_one(self) -> None:
        if self.pictures > 1:
            raise ImageError(
                f"{self.path} holds {self.pictures} pictures; expected one: split it into a file "
                "for each, or give it to icnet predict, which labels one after the other"
            )

    def _require_label_map(self) -> None:
        if self.orientation != 1:
            raise ImageError(
                f"the label map {self.path} has the EXIF orientation {self.orientation}; expected "
                "1, pixels stored upright: turn the pixels and write it again without EXIF"
            )
        if self.header.kind in ("JPEG", "WebP", "AVIF", "JPEG 2000"):
            raise ImageError(
                f"the label map {self.path} is in {self.header.kind}, which may change values; "
                "expected PNG, GIF, BMP, TIFF or PGM, in which values are exact: make it again so"
            )

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except Unreadable as error:
            raise ImageError(f"the image {self.path} {error}") from error


def read_image(path: str | Path) -> UInt8:
    """Decodes an image file to uint8 H x W x 3, RGB, 0..255.

    The picture is turned as EXIF's orientation says. Grey becomes three equal channels; of what
    is transparent the stored colour is taken, and alpha dropped; of 16 bits a sample the upper 8
    of those that the file says are used. No colour profile is applied.

    Raises:
        ImageError: there is no such file; it is not an image; it is not whole; it holds several
            pictures (`ImageFile.frames`); or it is of a kind that has no certain 8-bit RGB: CMYK,
            HDR, floating point, or 16 bits of which an unknown part is used.
    """
    return ImageFile(path).rgb()


def read_grey(path: str | Path) -> UInt8:
    """Decodes a label map to uint8 H x W, its samples unchanged.

    Of a file with a palette these are the indices, whatever the colours; of 1, 2 or 4 bits the
    values 0 to 1, 3 or 15; of 16 bits the values, if all are below 256. Alpha is ignored.

    Raises:
        ImageError: as `read_image`; or the file has colours without a palette, values above 255,
            an orientation, or a format that changes values, such as JPEG.
    """
    return ImageFile(path).indices()


def _turned(pixels: UInt8, orientation: int) -> UInt8:
    """Turns and mirrors stored pixels upright (EXIF 3.0, 4.6.5.1.6)."""
    if orientation < 2:
        return pixels
    import cv2

    if orientation >= 5:
        pixels = np.asarray(cv2.transpose(pixels), np.uint8)
    flips = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
    if orientation in flips:
        pixels = np.asarray(cv2.flip(pixels, flips[orientation]), np.uint8)
    return pixels


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


class Fitted(NamedTuple):
    """An image as a model gets it: `pixels`, uint8 H x W x 3, RGB.

    `content` is the (height, width) of the image in them, from the upper left corner on; the rest
    is border.
    """

    pixels: UInt8
    content: tuple[int, int]


def fit_image(
    image: UInt8,
    size: tuple[int, int],
    fit: str = "stretch",
    border: Sequence[float] = (0, 0, 0),
) -> Fitted:
    """Brings an image to a model's size.

    Args:
        image: uint8 H x W x 3, RGB.
        size: (height, width) in pixels.
        fit: of `metadata.FITS`: `stretch` resizes it, whatever its shape; `letterbox` resizes it to
            the largest size of its own shape that fits, and puts a border right of it and below.
        border: the border's colour, RGB, 0..255, rounded: the mean that the network subtracts.
    """
    if fit != "letterbox":
        return Fitted(resize_image(image, size), size)
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    content = min(size[0], height), min(size[1], width)
    return Fitted(pad_image(resize_image(image, content), size, border), content)


def pad_image(image: UInt8, size: tuple[int, int], border: Sequence[float]) -> UInt8:
    """Gives an image the border of `fit_image`; the same array where it has the size already."""
    height, width = image.shape[:2]
    if (height, width) == tuple(size):
        return image
    pixels = np.empty((*size, 3), np.uint8)
    pixels[:] = np.clip(np.round(border), 0, 255).astype(np.uint8)
    pixels[:height, :width] = image
    return pixels


@dataclass(frozen=True)
class Fitting:
    """How images of any size come to a model.

    Attributes:
        fit, border: see `fit_image`.
        min_side, side_multiple: of a model of free size; see `ArtefactMetadata`.
    """

    fit: str = "stretch"
    border: tuple[float, ...] = (0.0, 0.0, 0.0)
    min_side: int = 1
    side_multiple: int = 1

    @classmethod
    def of(cls, metadata: ArtefactMetadata) -> Fitting:
        """What an artefact says of it (ModelError: its mean is not three numbers)."""
        mean = metadata.preprocessing.get("mean", (0, 0, 0))
        if not _THREE.fits([*mean] if isinstance(mean, tuple) else mean):
            raise ModelError(
                f"the metadata's mean is {mean!r}, expected three numbers: export the model again"
            )
        border = mean[::-1] if metadata.preprocessing.get("channels") == "bgr" else mean
        return cls(metadata.fit, tuple(border), metadata.min_side, metadata.side_multiple)

    def apply(self, image: UInt8, size: tuple[int, int] | None) -> Fitted:
        """Brings an image, uint8 H x W x 3, RGB, to a (height, width).

        None: as it is, with a letterbox's border up to the `next_size`; raises as `check`.
        """
        if size is not None:
            return fit_image(image, size, self.fit, self.border)
        own = self.check(image)
        return Fitted(pad_image(image, self.next_size(own), self.border), own)

    def next_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The least (height, width), none below `size`, that a model of free size takes."""
        height, width = (
            -(-max(side, self.min_side) // self.side_multiple) * self.side_multiple for side in size
        )
        return height, width

    def check(self, image: Any) -> tuple[int, int]:
        """An image's (height, width), if a model of free size can take it (else ImageError)."""
        size = int(image.shape[0]), int(image.shape[1])
        above, multiple = self.next_size(size), self.side_multiple
        if self.fit == "letterbox" or above == size:
            return size
        start = f"the image is {size[0]} x {size[1]}; this model takes images at their own size, "
        if min(size) < self.min_side:
            least = self.next_size((1, 1))
            raise ImageError(
                f"{start}from {least[0]} x {least[1]} on: enlarge the image, or export the model "
                "at a fixed size"
            )
        below = self.next_size((size[0] - multiple + 1, size[1] - multiple + 1))
        raise ImageError(
            f"{start}of sides that are multiples of {multiple}, such as {below[0]} x {below[1]} or "
            f"{above[0]} x {above[1]}: crop or resize the image, or export the model at a fixed "
            "size or with the fit 'letterbox', which pads each image"
        )


def unfit_labels(labels: UInt8, content: tuple[int, int], size: tuple[int, int]) -> UInt8:
    """Cuts off the border (`Fitted.content`), and resizes the rest as `resize_labels`."""
    return resize_labels(labels[: content[0], : content[1]], size)


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
    return b"".join([PNG_START, *new, png[33:]])
