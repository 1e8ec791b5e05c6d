"""Pictures in reports: drawn, scaled down and encoded at once, so that few bytes are kept."""

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from icnet_deploy.drawing import blend, colourise
from icnet_deploy.images import UInt8, resize_labels
from icnet_deploy.labels import LabelSet
from icnet_deploy.report.html import Html, tag

Colour = tuple[int, int, int]

_WIDEST = 960  # pixels; a picture is then about 100 KB
_SPARSE = 0.002  # below this share of the pixels marks are drawn larger, or nobody finds them


@dataclass(frozen=True)
class Picture:
    """An encoded picture.

    Attributes:
        title: what it shows.
        mime: `image/png` or `image/jpeg`.
        data: the file.
    """

    title: str
    mime: str
    data: bytes

    def uri(self) -> str:
        """The picture as a `data:` address, which needs no file beside the report."""
        return f"data:{self.mime};base64,{base64.b64encode(self.data).decode('ascii')}"


@dataclass(frozen=True)
class Exhibit:
    """The pictures of one image, with a title and a line that says what to see."""

    title: str
    note: str
    pictures: tuple[Picture, ...]


@dataclass
class Gallery:
    """Keeps the exhibits of the few images that rank highest, however many are offered."""

    count: int
    _kept: list[tuple[float, Exhibit | Callable[[], Exhibit]]] = field(
        init=False, default_factory=list
    )

    def offer(self, rank: float, make: Callable[[], Exhibit], later: bool = False) -> None:
        """Shows an image.

        Args:
            rank: how high it ranks; of two that rank alike, the first is kept.
            make: draws it; is called only if it is kept for now.
            later: call `make` only in `exhibits`: it takes long, and others may rank higher.
        """
        full = len(self._kept) >= self.count
        if self.count == 0 or (full and rank <= self._kept[-1][0]):
            return
        self._kept.append((rank, make if later else make()))
        self._kept.sort(key=lambda item: -item[0])
        del self._kept[self.count :]

    def exhibits(self) -> list[Exhibit]:
        """The kept ones, highest rank first, each drawn by now."""
        drawn = [(rank, one if isinstance(one, Exhibit) else one()) for rank, one in self._kept]
        self._kept = [*drawn]
        return [exhibit for _, exhibit in drawn]


def photo(title: str, image: UInt8) -> Picture:
    """A picture of an image, uint8 H x W x 3, RGB."""
    return _jpeg(title, _shrink(image))


def overlay(title: str, image: UInt8, labels: UInt8, label_set: LabelSet) -> Picture:
    """An image with the colours of its label map, uint8 H x W, laid over it."""
    small = _shrink(image)
    colours = colourise(resize_labels(labels, small.shape[:2]), label_set)
    return _jpeg(title, blend(small, colours, 0.55))


def label_picture(title: str, labels: UInt8, label_set: LabelSet) -> Picture:
    """A label map, uint8 H x W, in the palette's colours; what is no class is black."""
    size = _small_size(labels)
    return _encode(title, ".png", colourise(resize_labels(labels, size), label_set), [])


def marks_picture(title: str, image: UInt8, marks: UInt8, colours: Mapping[int, Colour]) -> Picture:
    """Marked pixels in bright colours over the image in dark grey.

    Args:
        title: what it shows.
        image: uint8 H x W x 3, RGB.
        marks: uint8 H x W; values without a colour are not drawn.
        colours: value -> RGB; later ones lie on top. A mark outlives the scaling down, alone too.
    """
    import cv2

    small = _shrink(image)
    grey = small.mean(axis=2, keepdims=True) * 0.35 + 16
    canvas = np.repeat(grey, 3, axis=2).astype(np.uint8)
    height, width = canvas.shape[:2]
    for value, colour in colours.items():
        rows, cols = np.nonzero(marks == value)
        marked = np.zeros((height, width), np.uint8)
        marked[rows * height // marks.shape[0], cols * width // marks.shape[1]] = 1
        if len(rows) < _SPARSE * marks.size:
            marked = np.asarray(cv2.dilate(marked, np.ones((3, 3), np.uint8)), np.uint8)
        canvas[marked > 0] = colour
    return _jpeg(title, canvas)


def legend(colours: Iterable[tuple[str, Colour]]) -> Html:
    """Colour chips with their meanings."""
    return tag(
        "div",
        [
            tag("span", tag("i", style="background:#{:02x}{:02x}{:02x}".format(*colour)), name)
            for name, colour in colours
        ],
        class_="legend",
    )


def class_legend(label_set: LabelSet) -> Html:
    """The colours of a label set."""
    return legend(zip(label_set.names, label_set.palette, strict=True))


def exhibit(shown: Exhibit) -> Html:
    """The pictures of one image."""
    pictures = [
        tag(
            "figure",
            tag("img", src=picture.uri(), alt=f"{picture.title}: {shown.title}", loading="lazy"),
            tag("figcaption", picture.title),
        )
        for picture in shown.pictures
    ]
    return tag(
        "section",
        tag("h3", shown.title),
        tag("p", shown.note, class_="quiet"),
        tag("div", pictures, class_="pictures"),
        class_="exhibit",
    )


def _small_size(array: UInt8) -> tuple[int, int]:
    height, width = array.shape[:2]
    if width <= _WIDEST:
        return height, width
    return max(1, round(height * _WIDEST / width)), _WIDEST


def _shrink(image: UInt8) -> UInt8:
    import cv2

    height, width = _small_size(image)
    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _jpeg(title: str, image: UInt8) -> Picture:
    import cv2

    # 4:4:4: with halved colour a single red pixel turns grey.
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    options = [cv2.IMWRITE_JPEG_QUALITY, 85, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    return _encode(title, ".jpg", image, options)


def _encode(title: str, suffix: str, image: UInt8, options: list[int]) -> Picture:
    import cv2

    data: Any = cv2.imencode(suffix, np.ascontiguousarray(image[:, :, ::-1]), options)[1]
    return Picture(title, "image/png" if suffix == ".png" else "image/jpeg", data.tobytes())
