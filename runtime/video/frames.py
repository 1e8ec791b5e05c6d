"""What a reader of videos or animations gives: frames with their times, and what was wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]

USUAL_RATE = Fraction(25)
"""Frames a second, where a file says nothing."""


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
        f"its first {read} frames can be read: the next is of another size, {now[0]} x {now[1]} "
        f"after {first[0]} x {first[1]}"
    )
