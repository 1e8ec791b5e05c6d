"""Videos read with PyAV: the frames as a viewer shows them, their times, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from icnet_deploy.errors import ImageError
from icnet_deploy.runtime.video.clock import Clock
from icnet_deploy.runtime.video.frames import USUAL_RATE, Frame, size_change
from icnet_deploy.runtime.video.library import pyav
from icnet_deploy.runtime.video.pixels import Converter, display_matrix, swaps_sides
from icnet_deploy.runtime.video.whole import Tally

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
        self._av = pyav(f"reading the video {path}")
        if not path.is_file():
            raise ImageError(f"cannot read the video {path}: there is no such file")
        self._path = path
        try:
            # "file:", or a name with a colon is one of FFmpeg's protocols.
            self._container = self._av.open(f"file:{path}", metadata_errors="replace")
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise ImageError(
                f"{path} is not a video that can be decoded, or was cut off: {_words(error)}"
            ) from error
        try:
            self._stream = self._main_stream()
        except ImageError:
            self._container.close()
            raise
        self._format = frozenset(self._container.format.name.split(","))
        rate = self._stream.guessed_rate or self._stream.average_rate or USUAL_RATE
        self.rate = rate if 0 < rate <= 1000 else USUAL_RATE
        self.time_base = self._stream.time_base
        self.pixel_aspect = self._stream.sample_aspect_ratio or Fraction(1)
        self.count = self._about()
        self.problem = self.note = ""
        self._damaged = self._before_first = 0
        self._key_seen = self._reading = self._closed = False

    def _main_stream(self) -> Any:
        """The video, of several the one that players show; never a cover picture."""
        path, name = self._path, self._container.format.name
        if name in _BARE and path.suffix.lower() not in _BARE_SUFFIXES:
            raise ImageError(f"{path} is not a video that can be decoded: it has no index any more")
        flags = self._av.stream.Disposition
        hidden = flags.attached_pic | flags.timed_thumbnails
        streams = [s for s in self._container.streams.video if not s.disposition & hidden]
        if not streams:
            raise ImageError(f"{path} holds no video" + self._besides())
        stream = max(streams, key=lambda s: (bool(s.disposition & flags.default), -s.index))
        if stream.codec_context is None:
            raise ImageError(f"{path} is of a kind that PyAV's FFmpeg has no decoder for")
        # A frame that is not as its checksum says is an error, of JPEGs also one that ends early.
        self._jpeg = stream.codec_context.name == "mjpeg"
        stream.codec_context.options = {
            "err_detect": "crccheck+explode" if self._jpeg else "crccheck"
        }
        return stream

    def _besides(self) -> str:
        kinds = sorted({s.type for s in self._container.streams})
        return f", only {', '.join(kinds)}" if kinds and kinds != ["video"] else ", only a picture"

    def _about(self) -> int | None:
        if self._stream.frames:
            return int(self._stream.frames)
        duration = self._container.duration
        return round(Fraction(duration, 1_000_000) * self.rate) if duration else None

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
        tally = Tally(self._path, self._container, self._stream, self.rate)
        clock = Clock(self.time_base, 1 / self.rate, "avi" in self._format)
        convert = Converter(self._av)
        read, why = 0, ""
        size: tuple[int, ...] | None = None
        for frame in self._sound(tally):
            if not read:
                tally.begins(frame.pts)
            time, duration = clock(frame)
            image = self._image(convert, frame)
            size = size or image.shape
            if image.shape != size:
                why = size_change(read, size, image.shape)
                break
            if not read and swaps_sides(display_matrix(frame)):
                self.pixel_aspect = 1 / self.pixel_aspect
            read += 1
            yield Frame(image, time, duration)
        self.problem = why or tally.problem(read, self._damaged)
        if not read:
            raise ImageError(f"no frame of the video {self._path} can be decoded")
        self.note = self._notes(read, clock.made_up, tally.before_first())

    def _image(self, convert: Converter, frame: Any) -> Any:
        try:
            return convert(frame)
        except (self._av.FFmpegError, ValueError) as error:
            raise ImageError(
                f"{self._path}: its pixels ({frame.format.name}) cannot become RGB: {_words(error)}"
            ) from error

    def _sound(self, tally: Tally) -> Iterator[Any]:
        """Yields the frames that are whole, and drawn from such; counts the others."""
        sound = True
        for frames, whole, lost in self._decoded(tally):
            sound = sound and whole
            for frame in frames:
                sound = (sound or frame.key_frame) and not frame.is_corrupt
                if sound:
                    yield frame
                lost += not sound
            if self._format & _JOINED_IN and not self._key_seen:
                self._before_first += lost
            else:
                self._damaged += lost

    def _decoded(self, tally: Tally) -> Iterator[tuple[list[Any], bool, int]]:
        """Yields what the decoder makes of each packet; whether all is there; what is lost if not.

        What is lost is a number of frames, without those that the decoder gives.
        """
        stream, first = self._stream, True
        for packet in self._packets():
            lost = 0
            if packet.size or packet.dts is not None:  # PyAV's last one, to flush, has neither
                lost = tally.take(packet)
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
        if self._jpeg and packet is not None and not _is_jpeg(packet):
            return None
        try:
            return list(self._stream.decode(packet))
        except self._av.FFmpegError:
            return None

    def _packets(self) -> Iterator[Any]:
        try:
            yield from self._container.demux()
        except (self._av.FFmpegError, OSError):  # what follows cannot be found
            self._damaged += 1

    def _notes(self, read: int, made_up: int, before: int) -> str:
        notes = []
        if made_up == read:
            rate = f"{float(self.rate):g} frames a second"
            notes.append(f"it has no time stamps: it is shown at {rate}")
        elif made_up:
            notes.append(f"{made_up} of {read} frames have no time stamp after the one before")
        if before := max(before, self._before_first):
            notes.append(f"its first {before} frames need earlier ones that it does not hold")
        return "; ".join(notes)

    def close(self) -> None:
        """Closes the file; a second call does nothing.

        Where another thread is in the middle of reading, that thread does it when it ends.
        """
        self._closed = True
        if not self._reading:
            self._container.close()


def _is_jpeg(packet: Any) -> bool:
    """Whether a JPEG's start and end are there; FFmpeg goes on without either."""
    data = bytes(packet)
    return data.startswith(b"\xff\xd8") and b"\xff\xd9" in data.rstrip(b"\0")[-_TRAILER:]


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
