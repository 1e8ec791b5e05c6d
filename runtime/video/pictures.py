"""Frames of files that hold many pictures: animated GIF, WebP and PNG, JPEGs one after another."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from icnet_deploy.errors import ImageError
from icnet_deploy.images import ImageFile
from icnet_deploy.runtime.video.frames import USUAL_RATE, Frame, size_change

JPEG_SUFFIXES = frozenset({".mjpeg", ".mjpg"})
"""JPEGs one after another in a file ("raw MJPEG"), which has no time stamps."""

_MILLISECOND = Fraction(1, 1000)
_ANIMATIONS = frozenset({".gif", ".webp", ".png", ".apng", ".avif", ".avifs"})
_BROWSERS_RATE = Fraction(10)  # what they show these at, where frames have no duration


class PictureReader:
    """The pictures of a file, in order, once; see `FrameReader`. An animation is not repeated.

    Raises:
        ImageError: there is no such file, or it is not one of images.
    """

    time_base = _MILLISECOND
    pixel_aspect = Fraction(1)

    def __init__(self, path: Path) -> None:
        self._file = ImageFile(path)
        self.count: int | None = self._file.pictures
        self.rate = _BROWSERS_RATE if path.suffix.lower() in _ANIMATIONS else USUAL_RATE
        self.problem = self.note = ""

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames that can be read; see `FrameReader`."""
        read = untimed = 0
        time = Fraction(0)
        size: tuple[int, ...] | None = None
        try:
            for image, seconds in self._file.frames():
                size = size or image.shape
                if image.shape != size:
                    self.problem = size_change(read, size, image.shape)
                    break
                duration = 1 / self.rate
                if seconds is None:
                    untimed += 1
                else:
                    duration = max(round(seconds * 1000), 1) * _MILLISECOND
                yield Frame(image, time, duration)
                time += duration
                read += 1
        except ImageError as error:
            if not read:
                raise
            self.problem = f"{read} of {self.count} frames can be read ({error})"
        if untimed:
            rate = f"{float(self.rate):g} frames a second"
            self.note = f"{untimed} of its {read} frames have no duration: shown at {rate}"

    def close(self) -> None:
        """Does nothing: the file is closed when its last picture was read."""
