"""Videos written with PyAV: MP4 files of H.264 that browsers and phones play."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from icnet_deploy.errors import ImageError, OutputError, require
from icnet_deploy.files import replacing
from icnet_deploy.images import UInt8
from icnet_deploy.runtime.video.frames import FrameReader
from icnet_deploy.runtime.video.reader import BT709, FULL_RANGE, LIMITED_RANGE, colour_space

# superfast, 23: less noise and smaller files than the MPEG-4 part 2 that version 0.1.0 wrote, in
# about its time of the processor; veryfast takes 1.5 times that, for half the size.
# bf 0: of frames that are stored out of order MP4 cannot say how long the last is shown.
_X264 = {"preset": "superfast", "crf": "23", "bf": "0"}
# Ticks a second: the most that are kept, and what is taken instead.
_FINEST, _USUAL = 1_000_000, 90_000


class _VideoWriter:
    """An MP4 file that is being written; see `writing_video`."""

    def __init__(self, av: Any, container: Any, source: FrameReader) -> None:
        self._av, self._container, self._source = av, container, source
        fine = source.time_base.denominator > _FINEST
        self._time_base = Fraction(1, _USUAL) if fine else source.time_base
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._stream: Any = None
        self._tick, self.frames, self.end = -1, 0, Fraction(0)

    def write(self, image: UInt8, time: Fraction, duration: Fraction) -> None:
        """Adds a frame.

        Args:
            image: uint8 H x W x 3, RGB, all of one size. H.264 as players know it has even sides:
                an odd one grows by a copy of its last row or column.
            time: seconds since the first frame; grows.
            duration: seconds that it is shown for, if no other follows.

        Raises:
            ImageError: another size than the first frame's, or one that H.264 cannot hold.
            OSError: the disk is full, or the like.
        """
        if image.shape[0] % 2 or image.shape[1] % 2:
            odd = [(0, side % 2) for side in image.shape[:2]]
            image = np.pad(image, (*odd, (0, 0)), mode="edge")
        size = (image.shape[1], image.shape[0])
        self._stream = self._stream or self._open(*size)
        first = (self._stream.width, self._stream.height)
        if size != first:
            raise ImageError(f"the frames of the video change their size, from {first} to {size}")
        frame = self._av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), format="rgb24")
        frame = self._reformatter.reformat(
            frame,
            format="yuv420p",
            dst_colorspace="ITU709" if colour_space(*size) == BT709 else "ITU601",
            dst_color_range=LIMITED_RANGE,
            src_color_range=FULL_RANGE,
        )
        frame.time_base = self._time_base
        self._tick = max(round(time / self._time_base), self._tick + 1)
        frame.pts = self._tick
        frame.duration = max(1, round(duration / self._time_base))
        self._container.mux(self._stream.encode(frame))
        self.frames += 1
        self.end = (frame.pts + frame.duration) * self._time_base

    def _open(self, width: int, height: int) -> Any:
        stream = self._container.add_stream("libx264", rate=self._source.rate, options=_X264)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base = self._time_base
        context.flags |= self._av.codec.context.Flags.frame_duration  # packets have their frames'
        context.sample_aspect_ratio = self._source.pixel_aspect
        context.colorspace = colour_space(width, height)
        context.color_range = LIMITED_RANGE
        try:
            context.open()
        except (self._av.FFmpegError, ValueError) as error:
            raise ImageError(
                f"H.264 cannot hold frames of {height} x {width}: make the video smaller"
            ) from error
        return stream

    def close(self) -> None:
        """Writes what is left, and the file's index."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()


@contextmanager
def writing_video(path: Path, source: FrameReader) -> Iterator[_VideoWriter]:
    """Yields a writer; the file gets its name when the block succeeds and all of it is there.

    Args:
        path: an `.mp4` file.
        source: of which the rate, the time base and the pixels' shape are taken.

    Raises:
        OutputError: the folder cannot be written, the disk is full, or what was written is not
            what can be read back.
        MissingPackage: PyAV is not installed.
    """
    require(f"writing the video {path}", "video", "av")
    import av

    with replacing(path) as temporary:
        try:
            container = av.open(
                f"file:{temporary}", "w", format="mp4", options={"movflags": "+faststart"}
            )
            writer = _VideoWriter(av, container, source)
            try:
                yield writer
                writer.close()
            finally:
                with suppress(av.FFmpegError):
                    container.close()
            _check(av, temporary, path, writer)
        except av.FFmpegError as error:
            if isinstance(error, OSError):
                raise
            raise OutputError(f"cannot write the video {path}: {error.strerror}") from error


def _check(av: Any, file: Path, path: Path, writer: _VideoWriter) -> None:
    """Compares what can be read of a file, without decoding, with what was written.

    Raises:
        OutputError: they differ.
    """
    frames, end, ends_at = 0, Fraction(0), 0
    with av.open(f"file:{file}", format="mp4") as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            if packet.size and not packet.is_corrupt:
                frames += 1
                end = max(end, (packet.pts + packet.duration) * packet.time_base)
                ends_at = max(ends_at, packet.pos + packet.size)
    if frames != writer.frames or abs(end - writer.end) > Fraction(1, 1000):
        raise OutputError(
            f"cannot write the video {path}: {writer.frames} frames, {float(writer.end):.3f} s "
            f"were written, but {frames} frames, {float(end):.3f} s can be read back"
        )
    if ends_at > file.stat().st_size:
        raise OutputError(f"cannot write the video {path}: its end is missing")
