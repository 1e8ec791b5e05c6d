"""Frames of a decoder as RGB arrays, as a viewer shows them: colours by their tags, turned."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]

# ITU-T H.273, and the same in FFmpeg's AVColorSpace and AVColorRange.
BT709, _UNSPECIFIED, _RESERVED, _BT601 = 1, 2, 3, 6
LIMITED_RANGE, FULL_RANGE = 1, 2


def colour_space(width: int, height: int) -> int:
    """The matrix that players assume where a video names none: BT.709 in HD, BT.601 below."""
    return BT709 if width >= 1280 or height > 576 else _BT601


class Converter:
    """Turns decoded frames into RGB arrays; one for each video."""

    def __init__(self, av: Any) -> None:
        self._reformatter = av.video.reformatter.VideoReformatter()

    def __call__(self, frame: Any) -> UInt8:
        """A frame as uint8 H x W x 3, RGB, turned and mirrored as its display matrix says.

        The array has its own memory: no later frame is written into it.
        """
        if frame.colorspace in (_UNSPECIFIED, _RESERVED):
            frame.colorspace = colour_space(frame.width, frame.height)
        rgb = self._reformatter.reformat(frame, format="rgb24", dst_color_range=FULL_RANGE)
        image = turned(rgb.to_ndarray(), display_matrix(frame))
        # A frame that is RGB already is given back as it is: the decoder's own memory.
        return image.copy() if rgb is frame else np.ascontiguousarray(image)


def display_matrix(frame: Any) -> npt.NDArray[np.int32] | None:
    """The 3 x 3 matrix of fixed-point numbers that FFmpeg attaches to a frame, if any."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            return np.frombuffer(bytes(data), np.int32).reshape(3, 3)
    return None


def swaps_sides(matrix: npt.NDArray[np.int32] | None) -> bool:
    """Whether a display matrix turns a picture by 90 degrees, to the left or to the right."""
    return matrix is not None and bool(abs(int(matrix[0, 1])) > abs(int(matrix[0, 0])))


def turned(image: UInt8, matrix: npt.NDArray[np.int32] | None) -> UInt8:
    """Turns and mirrors a picture, uint8 H x W x 3, as a display matrix says.

    A pixel of column x and row y is shown at column a x + c y and row b x + d y, where the matrix
    begins with the rows (a, b, u) and (c, d, v). Of an angle that is no multiple of 90 degrees the
    nearest that is.
    """
    if matrix is None:
        return image
    (a, b), (c, d) = matrix[:2, :2].tolist()
    across, down = a, d
    if swaps_sides(matrix):
        image, across, down = image.swapaxes(0, 1), c, b
    return image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]
