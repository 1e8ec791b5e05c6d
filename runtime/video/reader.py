"""Videos read with PyAV: the frames as a viewer shows them, their times, and what is missing."""

from collections.abc import Iterator
from fractions import Fraction
from os.path import isfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import ImageError, require
from icnet_deploy.formats.decode import most_pixels, require_room
from icnet_deploy.formats.header import Unreadable
from icnet_deploy.images import UInt8
from icnet_deploy.runtime.video.frames import USUAL_RATE, Frame, size_change
from icnet_deploy.runtime.video.whole import Tally

# ITU-T H.273, and the same in FFmpeg's AVColorSpace and AVColorRange.
BT709, _UNSPECIFIED, _RESERVED, _BT601 = 1, 2, 3, 6
LIMITED_RANGE, FULL_RANGE = 1, 2

_BARE = frozenset(
    {"h264", "hevc", "m4v", "mpegvideo", "mjpeg", "mp3", "h261", "h263", "vc1", "obu"}
)
"""Streams without a container. FFmpeg takes what is left of a broken container for one of them."""

_BARE_SUFFIXES = frozenset({".mpg", ".mpeg", ".h264", ".264", ".h265", ".265", ".hevc"})

_TRAILER = 64  # bytes that a camera may put behind a JPEG's end

_JOINED_IN = frozenset({"mpegts", "mpeg"})
"""Formats of broadcasts, whose recordings may begin with frames that need earlier ones."""


class VideoReader:
    """The frames of a video file, in order, once; see `FrameReader`.

    Raises:
        ImageError: there is no such file, or it is not a video that can be decoded.
        MissingPackage: PyAV is not installed.
    """

    def __init__(self, path: Path) -> None:
        require(f"reading the video {path}", "video", "av")
        import av

        self._av, self._path = av, path
        if not isfile(path):
            raise ImageError(f"cannot read the video {path}: there is no such file")
        try:
            # "file:", or a name with a colon is one of FFmpeg's protocols.
            self._container = av.open(f"file:{path}", metadata_errors="replace")
        except (av.FFmpegError, OSError, ValueError) as error:
            raise ImageError(
                f"{path} is not a video that can be decoded, or was cut off: {_words(error)}"
            ) from error
        try:
            self._stream = self._main_stream()
        except ImageError:
            self._container.close()
            raise
        rate = self._stream.guessed_rate or self._stream.average_rate or USUAL_RATE
        self.rate = rate if 0 < rate <= 1000 else USUAL_RATE
        self.time_base = self._stream.time_base
        self.pixel_aspect = self._stream.sample_aspect_ratio or Fraction(1)
        about = round(Fraction(self._container.duration or 0, 1_000_000) * self.rate)
        self.count = self._stream.frames or about or None
        self.problem = self.note = ""
        self._tally = Tally(path, self._container, self._stream, self.rate)
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._damaged = self._before_first = 0
        self._key_seen = self._reading = self._closed = False

    def _main_stream(self) -> Any:
        """The video, of several the one that players show; never a cover picture."""
        path, name = self._path, self._container.format.name
        if name in _BARE and path.suffix.lower() not in _BARE_SUFFIXES:
            raise ImageError(f"{path} is not a video that can be decoded: its index is missing")
        flags = self._av.stream.Disposition
        hidden = flags.attached_pic | flags.timed_thumbnails
        streams = [s for s in self._container.streams.video if not s.disposition & hidden]
        if not streams:
            kinds = sorted({s.type for s in self._container.streams} - {"video"})
            raise ImageError(f"{path} holds no video, only {', '.join(kinds) or 'a picture'}")
        stream = max(streams, key=lambda s: (bool(s.disposition & flags.default), -s.index))
        if stream.codec_context is None:
            raise ImageError(f"PyAV's FFmpeg has no decoder for {path}")
        self._require_room(stream.codec_context.height, stream.codec_context.width)
        # A frame that is not as its checksum says is an error, of JPEGs also one that ends early.
        self._jpeg = stream.codec_context.name == "mjpeg"
        stream.codec_context.options = {
            "err_detect": "crccheck+explode" if self._jpeg else "crccheck",
            # Of a frame, whatever the header said; FFmpeg's own limit is an int's.
            "max_pixels": str(min(most_pixels(), 2**31 - 1)),
        }
        return stream

    def _require_room(self, height: int, width: int) -> None:
        """Refuses frames that are too large before memory is taken for one; 0: not known yet."""
        try:
            require_room(height or 1, width or 1)
        except Unreadable as error:
            raise ImageError(f"the video {self._path} {error}") from error

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames that can be read; see `FrameReader`.

        A frame that the decoder could not make whole is left out, and so is what may be drawn from
        it: all up to the next key frame.
        """
        self._reading = True
        try:
            yield from self._frames()
        finally:
            self._reading = False
            if self._closed:
                self._container.close()

    def _frames(self) -> Iterator[Frame]:
        clock = _Clock(self.time_base, 1 / self.rate, "avi" in self._tally.format)
        read, why = 0, ""
        size: tuple[int, ...] = ()
        for frame in self._sound():
            if not read:
                self._tally.first = frame.pts
                if _swaps_sides(_display_matrix(frame)):
                    self.pixel_aspect = 1 / self.pixel_aspect
            time, duration = clock(frame)
            image = self._rgb(frame)
            size = size or image.shape
            if image.shape != size:
                why = size_change(read, size, image.shape)
                break
            read += 1
            yield Frame(image, time, duration)
        self.problem = why or self._tally.problem(read, self._damaged)
        if not read:
            raise ImageError(f"no frame of the video {self._path} can be decoded")
        self.note = self._notes(read, clock.made_up)

    def _rgb(self, frame: Any) -> UInt8:
        """A frame as uint8 H x W x 3, RGB: colours by its tags, turned as its matrix says.

        The array has its own memory: no later frame is written into it.
        """
        if frame.colorspace in (_UNSPECIFIED, _RESERVED):
            frame.colorspace = colour_space(frame.width, frame.height)
        try:
            rgb: Any = self._reformatter.reformat(frame, format="rgb24", dst_color_range=FULL_RANGE)
            image = _turned(rgb.to_ndarray(), _display_matrix(frame))
        except (self._av.FFmpegError, ValueError) as error:
            raise ImageError(
                f"{self._path}: cannot convert its pixels ({frame.format.name}) to RGB: "
                f"{_words(error)}"
            ) from error
        # A frame that is RGB already is given back as it is: the decoder's own memory.
        return image.copy() if rgb is frame else np.ascontiguousarray(image)

    def _sound(self) -> Iterator[Any]:
        """Yields the frames that are whole, and drawn from such; counts the others."""
        sound = True
        for frames, whole, lost in self._decoded():
            sound = sound and whole
            for frame in frames:
                sound = (sound or frame.key_frame) and not frame.is_corrupt
                if sound:
                    yield frame
                lost += not sound
            if self._tally.format & _JOINED_IN and not self._key_seen:
                self._before_first += lost
            else:
                self._damaged += lost

    def _decoded(self) -> Iterator[tuple[list[Any], bool, int]]:
        """Yields what the decoder makes of each packet; whether all is there; what is lost if not.

        What is lost is a number of frames, without those that the decoder gives.
        """
        stream, first = self._stream, True
        for packet in self._packets():
            # PyAV's last packet, to flush, has neither a size nor a stamp.
            lost = self._tally.take(packet) if packet.size or packet.dts is not None else 0
            if packet.stream.index != stream.index or not packet.size:
                continue
            begins = packet.is_keyframe or not first or stream.codec_context.name == "h264"
            whole = not lost and not packet.is_corrupt and begins
            self._key_seen, first = self._key_seen or packet.is_keyframe, False
            frames = self._decode(packet)
            if frames is None:
                yield [], False, lost + 1
            else:
                yield frames, whole, lost + (packet.is_corrupt and not frames)
        frames = self._decode(None)  # those that waited for others
        yield frames or [], frames is not None, int(frames is None)

    def _decode(self, packet: Any) -> list[Any] | None:
        """The frames that the decoder gives for a packet, or to be emptied; None where it fails."""
        if self._jpeg and packet is not None and not _is_jpeg(bytes(packet)):
            return None
        try:
            return list(self._stream.decode(packet))
        except self._av.FFmpegError:
            return None

    def _packets(self) -> Iterator[Any]:
        try:
            yield from self._container.demux()
        except (self._av.FFmpegError, OSError, IndexError):  # what follows cannot be found
            self._damaged += 1

    def _notes(self, read: int, made_up: int) -> str:
        notes = []
        if made_up == read:
            rate = f"{float(self.rate):g} frames a second"
            notes.append(f"it has no time stamps: it is shown at {rate}")
        elif made_up:
            notes.append(
                f"{made_up} of {read} frames have no time stamp that is later than the one before"
            )
        if before := max(self._tally.before_first(), self._before_first):
            notes.append(f"its first {before} frames need earlier frames that it does not hold")
        return "; ".join(notes)

    def close(self) -> None:
        """Closes the file; a second call does nothing.

        Where another thread is in the middle of reading, that thread does it when it ends.
        """
        self._closed = True
        if not self._reading:
            self._container.close()


def _is_jpeg(data: bytes) -> bool:
    """Whether a JPEG's start and end are there; FFmpeg goes on without either."""
    return data.startswith(b"\xff\xd8") and b"\xff\xd9" in data.rstrip(b"\0")[-_TRAILER:]


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def colour_space(width: int, height: int) -> int:
    """The matrix that players assume where a video names none: BT.709 in HD, BT.601 below."""
    return BT709 if width >= 1280 or height > 576 else _BT601


def _display_matrix(frame: Any) -> npt.NDArray[np.int32]:
    """The 3 x 3 matrix of fixed-point numbers that FFmpeg attaches to a frame, or one that does
    nothing."""
    matrices = (bytes(data) for data in frame.side_data if data.type.name == "DISPLAYMATRIX")
    upright = np.eye(3, dtype=np.int32)
    return np.frombuffer(next(matrices, upright.tobytes()), np.int32).reshape(3, 3)


def _swaps_sides(matrix: npt.NDArray[np.int32]) -> bool:
    """Whether a display matrix turns a picture by 90 degrees, to the left or to the right."""
    return bool(abs(int(matrix[0, 1])) > abs(int(matrix[0, 0])))


def _turned(image: UInt8, matrix: npt.NDArray[np.int32]) -> UInt8:
    """Turns and mirrors a picture, uint8 H x W x 3, as a display matrix says.

    A pixel of column x and row y is shown at column a x + c y and row b x + d y, where the matrix
    begins with the rows (a, b, u) and (c, d, v). Of an angle that is no multiple of 90 degrees the
    nearest that is.
    """
    (a, b), (c, d) = matrix[:2, :2].tolist()
    across, down = a, d
    if _swaps_sides(matrix):
        image, across, down = image.swapaxes(0, 1), c, b
    return image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


class _Clock:
    """Times of frames, in seconds since the first, that grow.

    A frame has a time stamp of its own and the one of the packet that it came from. Of two that
    disagree, the one that has failed to grow less often so far is taken, as FFmpeg's players do.

    Args:
        time_base: seconds of a tick of the stamps.
        step: seconds of a frame whose duration is not known.
        packets_only: the container (AVI) stamps packets only, and counts frames with it: a frame's
            own stamp is a guess.

    Attributes:
        made_up: how many frames had no stamp that grows; each follows the one before.
    """

    def __init__(self, time_base: Fraction, step: Fraction, packets_only: bool) -> None:
        self._time_base, self._step, self._packets_only = time_base, step, packets_only
        self._start: Fraction | None = None
        self._time = self._duration = Fraction(0)
        self._last: dict[str, int] = {}
        self._failed = {"pts": 0, "dts": 0}
        self._in_a_row = self.made_up = 0

    def __call__(self, frame: Any) -> tuple[Fraction, Fraction]:
        """The time and the duration of the next frame, in seconds."""
        stamp = self._stamp(frame)
        time = None if stamp is None else stamp * self._time_base
        if self._start is None:
            self._start = time or Fraction(0)
            self.made_up += time is None and not self._packets_only
        elif time is not None and time - self._start > self._time:
            self._time = time - self._start
            self._in_a_row = 0
        else:
            # After a stamp that is twice there, half a frame leaves room for the next one.
            once = time is not None and not self._in_a_row
            self._time += self._duration / 2 if once else self._duration
            self._in_a_row += 1
            self.made_up += not (time is None and self._packets_only)
        ticks = frame.duration or 0
        self._duration = ticks * self._time_base if ticks > 0 else self._step
        return self._time, self._duration

    def _stamp(self, frame: Any) -> int | None:
        pts: int | None = frame.pts
        dts: int | None = frame.dts
        given = pts if dts is None else dts
        if self._packets_only or given is None:
            return dts
        for kind, own in (("dts", dts), ("pts", pts)):
            self._failed[kind] += own is not None and own <= self._last.get(kind, own - 1)
            self._last[kind] = given if own is None else own
        better = dts is None or self._failed["pts"] <= self._failed["dts"]
        return pts if better and pts is not None else dts
