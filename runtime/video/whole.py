"""Whether a video is whole: what its container states, against what was read of it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

from icnet_deploy.runtime.video.holes import Holes

_STATES_DURATION = frozenset({"matroska", "webm", "flv", "asf"})
"""Formats whose header states how long the file is. FFmpeg gives a duration for others, too, which
it reads off their last time stamps: that of a file that was cut off is the shorter one."""

_SLACK = 2  # frames, or 1 %: what a stated duration may be off in a file that is whole

_TS_PACKETS = {188: 188, 192: 188, 204: 204}  # bytes; and from the end of one to its sync byte
_TS_SYNC = b"G"
_OGG_PAGE, _OGG_LAST, _OGG_LONGEST = b"OggS", 4, 27 + 255 + 255 * 255
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_DURATION, _ASF_PREROLL, _HEAD = 64, 80, 1 << 16  # where they stand behind it; where to look

Missing = tuple[int, int | None, str]
"""Frames that are missing; all frames, where the container counts them; why."""


class Tally:
    """Counts the packets of a file that is read to its end, and says what is missing.

    Args:
        path: the file.
        container: of PyAV, opened for reading.
        stream: the video in it.
        rate: frames a second, about.
    """

    def __init__(self, path: Path, container: Any, stream: Any, rate: Fraction) -> None:
        self._path, self._container, self._stream, self._rate = path, container, stream, rate
        self._format = frozenset(container.format.name.split(","))
        self._packets = self._hidden = self._ticks = 0
        self._video_start: Fraction | None = None
        self._video_end = self._end = Fraction(0)
        self._holes = Holes(path, self._format)
        self._behind_hole = False
        self._first: int | None = None
        self._early: list[int] = []

    def begins(self, stamp: int | None) -> None:
        """Is told the time stamp of the first frame that the decoder gives."""
        self._first = stamp

    def before_first(self) -> int:
        """How many frames are shown before the first one that the decoder gives.

        They are drawn from earlier ones, which the file does not hold.
        """
        return sum(stamp < self._first for stamp in self._early) if self._first is not None else 0

    def take(self, packet: Any) -> int:
        """Counts a packet of any of the file's streams.

        Returns:
            How many frames are missing right before it, about.
        """
        stamp = packet.dts if packet.pts is None else packet.pts
        start = None if stamp is None else stamp * packet.time_base
        end = Fraction(0) if start is None else start + (packet.duration or 0) * packet.time_base
        self._end = max(self._end, end)
        self._behind_hole |= self._holes.before(packet)
        if packet.stream.index != self._stream.index:
            return 0
        missing = 0
        if self._behind_hole:
            self._behind_hole = False
            pause = Fraction(0) if start is None else start - self._video_end
            missing = max(1, round(pause * self._rate))
        self._packets += 1
        self._hidden += packet.is_discard
        if packet.pts is not None and (self._first is None or packet.pts < self._first):
            self._early += [] if packet.is_discard else [packet.pts]
        if packet.dts is not None:
            self._ticks = max(self._ticks, packet.dts + 1)
        self._video_start = start if self._video_start is None else self._video_start
        self._video_end = max(self._video_end, end)
        return missing

    def problem(self, read: int, damaged: int) -> str:
        """What is missing or damaged, with both counts; "" if nothing is.

        Args:
            read: how many frames could be read.
            damaged: how many frames or packets could not.
        """
        missing, stated, why = self._missing()
        if not missing and not damaged and stated is not None:
            # What a decoder leaves out without a word: more than one that it was not sent twice.
            silent = stated - read - self.before_first()
            missing = silent if silent > max(_SLACK, stated / 100) else 0
        if not missing and not damaged:
            return ""
        total = f"about {read + damaged + missing}" if stated is None else str(stated)
        return f"{read} of {total} frames can be read ({why or 'the others are damaged'})"

    def _missing(self) -> Missing:
        if "mov" in self._format:
            # The sample table, after edit lists, which hide frames or show them twice. That of a
            # file in fragments counts those that are there.
            stated = len(self._stream.index_entries) or self._stream.frames
            missing = max(0, stated - self._packets)
            if not _index_is_whole(self._path):
                return missing + 1, None, "its index was cut off"
            counted = stated - self._hidden if self._stream.frames else None
            return missing, counted, _cut_off(missing)
        if "avi" in self._format:
            return self._missing_in_avi(self._stream.frames)
        if "ogg" in self._format:
            return self._missing_in_ogg()
        if "mpegts" in self._format and not _ends_as_ts(self._path):
            return 1, None, "it was cut off within a packet"
        return self._missing_by_time() if self._format & _STATES_DURATION else (0, None, "")

    def _missing_in_avi(self, stated: int) -> Missing:
        missing = max(0, stated - self._ticks)
        if self._ticks > self._packets:  # of a rate that varies: ticks without a frame are counted
            missing = round(missing * self._packets / self._ticks)
            missing *= missing > max(_SLACK, self._packets / 100)
            return missing, None, _cut_off(missing)
        return missing, stated or None, _cut_off(missing)

    def _missing_in_ogg(self) -> Missing:
        if not _ends_as_ogg(self._path):
            return 1, None, "it was cut off: its last page is missing"
        # Ogg has one rate, and FFmpeg leaves out pages whose checksum is wrong.
        length = self._video_end - (self._video_start or 0)
        missing = round(length * self._rate) - self._packets
        if missing > max(_SLACK, self._packets / 100):
            return missing, None, "pages in its middle are damaged"
        return 0, None, ""

    def _missing_by_time(self) -> Missing:
        duration = Fraction(self._container.duration or 0, 1_000_000)
        if not duration and "asf" in self._format:
            duration = _asf_duration(self._path)
        each = (self._video_end - (self._video_start or 0)) / max(1, self._packets)
        if duration - self._end > max(duration / 100, _SLACK * each):
            own = _seconds(self._stream.metadata.get("DURATION", "")) or duration
            missing = max(1, round((min(own, duration) - self._video_end) / (each or duration)))
            why = f"it ends after {float(self._end):.2f} of {float(duration):.2f} s"
            return missing, None, why
        return 0, None, ""


def _cut_off(missing: int) -> str:
    return "it was cut off, or bytes are missing" if missing else ""


def _index_is_whole(path: Path) -> bool:
    """Whether the boxes with an MP4 file's sample tables end within it (ISO 14496-12, 4.2)."""
    size, at = path.stat().st_size, 0
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4]), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:])
            at += length
            if kind in (b"moov", b"moof") and at > size:
                return False
            if length < 8:  # to the end, or no box
                break
    return True


def _ends_as_ts(path: Path) -> bool:
    """Whether a transport stream, of one of the three sizes of packets, ends with a whole one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - max(_TS_PACKETS)))
        tail = file.read()
    return any(
        size % length == 0 and tail[-sync:][:1] == _TS_SYNC for length, sync in _TS_PACKETS.items()
    )


def _ends_as_ogg(path: Path) -> bool:
    """Whether the last page of an Ogg file is whole and says that it is the last (RFC 3533, 6)."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _OGG_LONGEST))
        tail = file.read()
    page = tail[tail.rfind(_OGG_PAGE) :]
    if len(page) < 27 or not page[5] & _OGG_LAST:
        return False
    segments = page[27 : 27 + page[26]]
    return len(page) >= 27 + page[26] + sum(segments)


def _asf_duration(path: Path) -> Fraction:
    """An ASF file's duration by its header, in seconds; 0 if that states none.

    FFmpeg leaves it out of a file that is shorter than its header states.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    properties = head[head.find(_ASF_PROPERTIES) :] if _ASF_PROPERTIES in head else b""
    duration, preroll = (
        int.from_bytes(properties[start : start + 8], "little")
        for start in (_ASF_DURATION, _ASF_PREROLL)
    )
    return max(Fraction(0), Fraction(duration, 10_000_000) - Fraction(preroll, 1000))


def _seconds(text: str) -> Fraction | None:
    """A track's duration in Matroska's tags, "00:00:01.600000000", in seconds."""
    try:
        hours, minutes, seconds = text.split(":")
        return Fraction(hours) * 3600 + Fraction(minutes) * 60 + Fraction(seconds)
    except ValueError:
        return None
