"""PyAV, which brings FFmpeg: imported when a video is first read or written."""

from __future__ import annotations

from typing import Any

from icnet_deploy.errors import MissingPackage


def pyav(purpose: str) -> Any:
    """The module `av`.

    Args:
        purpose: what wants it, for the message: "reading the video x.mp4".

    Raises:
        MissingPackage: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingPackage("av", extra="video", purpose=purpose) from error
    return av
