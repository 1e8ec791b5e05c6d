"""Videos in every container, read to their end."""

import io
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tools.fuzz.mutate.raw import changed_bytes
from tools.fuzz.target import Run, Target

# Container of FFmpeg -> codecs, and the suffix that files have.
_KINDS = {
    "mp4": (("libx264", "mpeg4"), ".mp4"),
    "mov": (("mjpeg",), ".mov"),
    "matroska": (("libx264", "ffv1"), ".mkv"),
    "webm": (("libvpx",), ".webm"),
    "avi": (("mjpeg", "mpeg4"), ".avi"),
    "ogg": (("libtheora",), ".ogv"),
    "mpegts": (("mpeg2video",), ".ts"),
    "mpeg": (("mpeg1video",), ".mpg"),
    "flv": (("flv",), ".flv"),
    "asf": (("wmv2",), ".wmv"),
    "h264": (("libx264",), ".h264"),
}
_FRAMES = 30


def _clip(form: str, codec: str) -> bytes:
    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format=form) as out:
        video: Any = out.add_stream(codec, rate=25)
        video.width, video.height = 48, 32
        video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if codec == "libx264":
            video.options = {"x264-params": "keyint=4:mbtree=0:rc-lookahead=0"}
        for number in range(8):
            image = np.random.default_rng(number).integers(0, 255, (4, 6, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(np.kron(image, np.ones((8, 8, 1), np.uint8)))
            out.mux(video.encode(frame.reformat(format=video.pix_fmt)))
        out.mux(video.encode(None))
    return stream.getvalue()


def _seeds() -> list[bytes]:
    """The suffix, and the file behind a zero."""
    clips = []
    for form, (codecs, suffix) in _KINDS.items():
        for codec in codecs:
            try:
                clips.append(suffix.encode() + b"\0" + _clip(form, codec))
            except Exception:  # this FFmpeg lacks the codec
                continue
    return clips


def _changed(data: bytes, rng: Random) -> bytes:
    suffix, _, content = data.partition(b"\0")
    if rng.random() < 0.03:
        suffix = rng.choice([suffix for _, suffix in _KINDS.values()] + [".mjpeg"]).encode()
    return suffix + b"\0" + changed_bytes(content, rng)


def _prepare(folder: Path) -> Run:
    from icnet_deploy.runtime.video import VIDEO_SUFFIXES, open_frames

    def run(data: bytes) -> Iterator[str]:
        name, _, content = data.partition(b"\0")
        suffix = name.decode("latin-1")
        path = folder / f"clip{suffix if suffix in VIDEO_SUFFIXES else '.mp4'}"
        path.write_bytes(content)
        try:
            with closing(open_frames(path)) as reader:
                yield "opened"
                before = None
                for frame in islice(reader, _FRAMES):
                    assert before is None or frame.time > before
                    assert frame.image.dtype == np.uint8
                    before = frame.time
                str(reader.problem), str(reader.note), str(reader.count), str(reader.rate)
            yield "read"
        finally:
            path.unlink()

    return run


TARGETS = (
    Target(
        "videos",
        "videos in MP4, MOV, Matroska, WebM, AVI, Ogg, MPEG-TS, MPEG-PS, FLV, ASF, bare H.264",
        _seeds,
        _changed,
        _prepare,
        20_000,
        megabytes=512,
    ),
)
