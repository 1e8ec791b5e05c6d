"""What a reader of videos or animations gives: frames with their times, and what was wrong."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from icnet_deploy.errors import ImageError
from icnet_deploy.images import ImageFile, UInt8

USUAL_RATE = Fraction(25)
"""Frames a second, where a file says nothing."""

JPEG_SUFFIXES = frozenset({".mjpeg", ".mjpg"})
"""JPEGs one after another in a file ("raw MJPEG"), which has no time stamps."""

_MILLISECOND = Fraction(1, 1000)
_ANIMATIONS = frozenset({".gif", ".webp", ".png", ".apng", ".avif", ".avifs"})
_BROWSERS_RATE = Fraction(10)  # what they show these at, where frames have no duration


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame.

    Attributes:
        image: uint8 H x W x 3, RGB, 0..255, as a viewer shows it; its own memory.
        time: seconds since the first frame; grows from frame to frame.
        duration: seconds that it is shown for, if no other follows.
    """

    image: UInt8
    time: Fraction
    duration: Fraction


class FrameReader(Protocol):
    """The frames of a file, in order, once.

    Attributes:
        rate: frames a second, about.
        count: how many frames it has, about, or None; for a progress bar.
        time_base: seconds; the times are whole multiples of it.
        pixel_aspect: a pixel's width over its height, as a viewer shows it.
        problem: after the last frame: a sentence on what is missing or damaged; "" if nothing.
        note: after the last frame: a sentence on times that had to be made up, or the like; "".
    """

    rate: Fraction
    count: int | None
    time_base: Fraction
    pixel_aspect: Fraction
    problem: str
    note: str

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames that can be read.

        Raises:
            ImageError: not one can.
        """

    def close(self) -> None:
        """Closes the file; a second call does nothing."""


def size_change(read: int, first: tuple[int, ...], now: tuple[int, ...]) -> str:
    """What is wrong with a file whose frames change their size: a video has one."""
    return (
        f"its first {read} frames can be read: the next one has another size, {now[0]} x {now[1]} "
        f"after {first[0]} x {first[1]}"
    )


class PictureReader:
    """Files that hold many pictures: animated GIF, WebP and PNG, JPEGs one after another.

    See `FrameReader`. An animation is not repeated.

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
        size: tuple[int, ...] = ()
        try:
            for image, seconds in self._file.frames():
                size = size or image.shape
                if image.shape != size:
                    self.problem = size_change(read, size, image.shape)
                    break
                untimed += seconds is None
                ticks = max(round((seconds or 0) * 1000), 1)
                duration = 1 / self.rate if seconds is None else ticks * _MILLISECOND
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
