"""Videos in and out, frame by frame, through OpenCV."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import ImageError, OutputError
from icnet_deploy.files import replacing

__all__ = ["VIDEO_SUFFIXES", "VideoReader", "VideoWriter", "writing_video"]

UInt8 = npt.NDArray[np.uint8]

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"})

_CODEC = "mp4v"  # MPEG-4 part 2: the one encoder for .mp4 in every build of OpenCV with FFmpeg
_USUAL_RATE = 25.0


class VideoReader:
    """The frames of a video file, in order, once.

    Attributes:
        rate: frames a second; 25 where the file does not say.
        count: how many frames the file says it has, or None.

    Raises:
        ImageError: there is no such file, or it is not a video that can be decoded.
    """

    def __init__(self, path: Path) -> None:
        cv2 = _cv2()
        if not path.is_file():
            raise ImageError(f"cannot read the video {path}: there is no such file")
        self._path = path
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise ImageError(f"{path} is not a video that can be decoded, or was cut off")
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.rate = rate if 0 < rate < 1000 else _USUAL_RATE
        self.count = count if count > 0 else None

    def __iter__(self) -> Iterator[UInt8]:
        """Yields uint8 H x W x 3 arrays, RGB, each its own memory.

        Raises:
            ImageError: not one frame can be decoded.
        """
        cv2 = _cv2()
        found = False
        while True:
            ok, frame = self._capture.read()
            if not ok:
                break
            found = True
            yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        if not found:
            raise ImageError(f"no frame of the video {self._path} can be decoded")

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        self._capture.release()


class VideoWriter:
    """An MP4 file that is being written; see `writing_video`."""

    def __init__(self, path: Path, rate: float) -> None:
        self._path, self._rate = path, rate
        self._writer: Any = None
        self._size: tuple[int, int] | None = None

    def write(self, frame: UInt8) -> None:
        """Adds a frame, uint8 H x W x 3, RGB, all of one size.

        Raises:
            OutputError: this OpenCV has no encoder for it, or the file cannot be written.
        """
        cv2 = _cv2()
        size = (frame.shape[1], frame.shape[0])
        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*_CODEC)
            self._writer, self._size = (
                cv2.VideoWriter(str(self._path), code, self._rate, size),
                size,
            )
            if not self._writer.isOpened():
                raise OutputError(
                    f"this OpenCV cannot write an MP4 video of {size[1]} x {size[0]} (codec "
                    f"{_CODEC}): install opencv-python-headless from PyPI, which brings FFmpeg"
                )
        if size != self._size:
            raise ImageError(f"the video's frames change their size, {self._size} to {size}")
        self._writer.write(cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finishes the file; a second call does nothing."""
        if self._writer is not None:
            self._writer.release()


@contextmanager
def writing_video(path: Path, rate: float) -> Iterator[VideoWriter]:
    """Yields a writer; the file gets its name when the block succeeds.

    Args:
        path: an `.mp4` file.
        rate: frames a second.

    Raises:
        OutputError: the folder cannot be written, or nothing came of the frames.
    """
    with replacing(path) as temporary:
        writer = VideoWriter(temporary, rate)
        try:
            yield writer
        finally:
            writer.close()
        if not temporary.is_file() or not temporary.stat().st_size:
            raise OutputError(f"OpenCV wrote nothing to {path}: is there room on the disk?")


def _cv2() -> Any:
    """OpenCV, told to leave its and FFmpeg's notes on broken files to our own errors."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2
