"""Videos and animations in, videos out, frame by frame."""

from pathlib import Path

from icnet_deploy.runtime.video.frames import JPEG_SUFFIXES, Frame, FrameReader, PictureReader
from icnet_deploy.runtime.video.reader import VideoReader
from icnet_deploy.runtime.video.writer import writing_video

__all__ = [
    "VIDEO_SUFFIXES",
    "Frame",
    "VideoReader",
    "open_frames",
    "writing_video",
]

VIDEO_SUFFIXES = JPEG_SUFFIXES | {
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".avi", ".mkv", ".webm", ".ogv"),
    *(".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob", ".wmv", ".asf", ".flv", ".mxf"),
    *(".h264", ".264", ".h265", ".265", ".hevc"),
}
"""The suffixes of files that are read as videos."""


def open_frames(path: Path) -> FrameReader:
    """Opens a video, or an image file of many pictures, by its suffix.

    Raises:
        ImageError: there is no such file, or it cannot be decoded.
        MissingPackage: it is a video, and PyAV is not installed.
    """
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES and suffix not in JPEG_SUFFIXES:
        return VideoReader(path)
    return PictureReader(path)
