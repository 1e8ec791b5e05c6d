"""Whether a video is whole: what its container states, against what was read of it."""

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from icnet_deploy.files import open_file

_STATES_DURATION = frozenset({"matroska", "webm", "flv", "asf"})
"""Formats whose header states how long the file is. FFmpeg gives a duration for others, too, which
it reads off their last time stamps: that of a file that was cut off is the shorter one."""

_SLACK = 2  # frames, or 1 %: what a stated duration may be off in a file that is whole

_TS_PACKETS = {188: 188, 192: 188, 204: 204}  # bytes; and from the end of one to its sync byte
_TS_SYNC = b"G"
_OGG_PAGE, _OGG_LAST, _OGG_LONGEST = b"OggS", 4, 27 + 255 + 255 * 255
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_DURATION, _ASF_PREROLL, _HEAD = 48, 64, 1 << 16  # where they stand behind it; where to look

# As Matroska's tags have it. `Fraction` takes more, such as a number of a billion digits.
_DURATION = re.compile(r"(\d{1,9}):(\d{1,2}):(\d{1,2}(?:\.\d{1,12})?)", re.ASCII)

_Missing = tuple[int, int | None, str]
"""Frames that are missing; all frames, where the container counts them; why."""


class Tally:
    """Counts the packets of a file that is read to its end, and says what is missing.

    Args:
        path: the file.
        container: of PyAV, opened for reading.
        stream: the video in it.
        rate: frames a second, about.

    Attributes:
        format: the names of the container's format, of FFmpeg.
        first: the time stamp of the first frame that the decoder gives, once it is known.
    """

    def __init__(self, path: Path, container: Any, stream: Any, rate: Fraction) -> None:
        self._path, self._container, self._stream, self._rate = path, container, stream, rate
        self.format = frozenset(container.format.name.split(","))
        self._packets = self._hidden = self._ticks = 0
        self._video_start: Fraction | None = None
        self._video_end = self._end = Fraction(0)
        self._holes = _Holes(path, self.format)
        self._behind_hole = False
        self.first: int | None = None
        self._early: list[int] = []

    def before_first(self) -> int:
        """How many frames are shown before the first one that the decoder gives.

        They are drawn from earlier ones, which the file does not hold.
        """
        return sum(stamp < self.first for stamp in self._early) if self.first is not None else 0

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
        if packet.pts is not None and (self.first is None or packet.pts < self.first):
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
            missing = _notable(stated - read - self.before_first(), stated)
        if not missing and not damaged:
            return ""
        why = why if missing and why else "the others are damaged"
        total = f"about {read + damaged + missing}" if stated is None else str(stated)
        return f"{read} of {total} frames can be read ({why})"

    def _missing(self) -> _Missing:
        stated, packets = self._stream.frames, self._packets
        if "mov" in self.format:
            # The sample table, after edit lists, which hide frames or show them twice. That of a
            # file in fragments counts those that are there.
            samples = len(self._stream.index_entries) or stated
            missing = max(0, samples - packets)
            if not _index_is_whole(self._path):
                return missing + 1, None, "its index was cut off"
            return missing, samples - self._hidden if stated else None, _cut_off(missing)
        if "avi" in self.format:
            missing = max(0, stated - self._ticks)
            if self._ticks > packets:  # of a rate that varies: ticks without a frame are counted
                missing, stated = _notable(round(missing * packets / self._ticks), packets), 0
            return missing, stated or None, _cut_off(missing)
        if "ogg" in self.format:
            if not _ends_as_ogg(self._path):
                return 1, None, "it was cut off: its last page is missing"
            # Ogg has one rate, and FFmpeg leaves out pages whose checksum is wrong.
            length = self._video_end - (self._video_start or 0)
            return (
                _notable(round(length * self._rate) - packets, packets),
                None,
                "pages in its middle are damaged",
            )
        if "mpegts" in self.format and not _ends_as_ts(self._path):
            return 1, None, "it was cut off within a packet"
        return self._missing_by_time() if self.format & _STATES_DURATION else (0, None, "")

    def _missing_by_time(self) -> _Missing:
        duration = Fraction(self._container.duration or 0, 1_000_000)
        if not duration and "asf" in self.format:
            duration = _asf_duration(self._path)
        each = (self._video_end - (self._video_start or 0)) / max(1, self._packets)
        if duration - self._end > max(duration / 100, _SLACK * each):
            own = _seconds(self._stream.metadata.get("DURATION", "")) or duration
            missing = max(1, round((min(own, duration) - self._video_end) / (each or duration)))
            why = f"it ends after {float(self._end):.2f} of {float(duration):.2f} s"
            return missing, None, why
        return 0, None, ""


def _notable(missing: int, of: int) -> int:
    """How many frames are missing; 0 where a file that is whole may lack as many."""
    return missing if missing > max(_SLACK, of / 100) else 0


def _cut_off(missing: int) -> str:
    return "it was cut off, or bytes are missing" if missing else ""


def _part(path: Path, start: int, length: int = -1) -> bytes:
    """Bytes of a file from a place on, which is counted from its end if it is below 0."""
    with open_file(path) as file:
        file.seek(max(0, path.stat().st_size + start) if start < 0 else start)
        return file.read(length)


def _index_is_whole(path: Path) -> bool:
    """Whether the boxes with an MP4 file's sample tables end within it (ISO 14496-12, 4.2)."""
    size, at, length = path.stat().st_size, 0, 8
    with open_file(path) as file:
        while at + 8 <= size and length >= 8:  # a shorter one goes on to the end, or is no box
            file.seek(at)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4]), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:])
            at += length
            if kind in (b"moov", b"moof") and at > size:
                return False
    return True


def _ends_as_ts(path: Path) -> bool:
    """Whether a transport stream, of one of the three sizes of packets, ends with a whole one."""
    size, tail = path.stat().st_size, _part(path, -max(_TS_PACKETS))
    return any(
        size % length == 0 and tail[-sync:][:1] == _TS_SYNC for length, sync in _TS_PACKETS.items()
    )


def _ends_as_ogg(path: Path) -> bool:
    """Whether the last page of an Ogg file is whole and says that it is the last (RFC 3533, 6)."""
    tail = _part(path, -_OGG_LONGEST)
    page = tail[tail.rfind(_OGG_PAGE) :]
    if len(page) < 27 or not page[5] & _OGG_LAST:
        return False
    segments = page[27 : 27 + page[26]]
    return len(page) >= 27 + page[26] + sum(segments)


def _asf_duration(path: Path) -> Fraction:
    """An ASF file's duration by its header, in seconds; 0 if that states none.

    FFmpeg leaves it out of a file that is shorter than its header states.
    """
    _, _, properties = _part(path, 0, _HEAD).partition(_ASF_PROPERTIES)
    duration, preroll = (
        int.from_bytes(properties[start : start + 8], "little")
        for start in (_ASF_DURATION, _ASF_PREROLL)
    )
    return max(Fraction(0), Fraction(duration, 10_000_000) - Fraction(preroll, 1000))


def _seconds(text: str) -> Fraction | None:
    """A track's duration in Matroska's tags, "00:00:01.600000000", in seconds."""
    parts = _DURATION.fullmatch(text.strip())
    if parts is None:
        return None
    hours, minutes, seconds = map(Fraction, parts.groups())
    return hours * 3600 + minutes * 60 + seconds


_Step = Callable[[bytes, int], tuple[int, int] | None]
"""Of the element that begins at a place: where its data begin, and the next element; None: it is
none."""

_HOLDERS = {bytes.fromhex(kind) for kind in ("18538067", "1f43b675", "a0")}
"""Matroska's elements that hold a packet's: a segment, a cluster, a block group."""

_BLOCKS = {b"\xa3", b"\xa1"}

_LEAVES = _BLOCKS | {
    bytes.fromhex(kind)
    for kind in (
        *("e7", "a7", "ab", "5854", "af"),  # what a cluster holds
        *("75a1", "9b", "fa", "fb", "fd", "a4", "75a2", "8e", "c8"),  # what a block group holds
        *("ec", "bf"),  # nothing, and a checksum
        *("114d9b74", "1549a966", "1654ae6b", "1c53bb6b", "1941a469", "1043a770", "1254c367"),
    )
}
"""Matroska's other elements between two packets; the last line's are a segment's own."""


class _Holes:
    """Looks for holes: bytes between packets that are nothing which belongs there, left by damage.

    FFmpeg's demuxers go on behind such bytes in Matroska, AVI and FLV files and say nothing, and
    decoders draw what follows from frames that are missing. It marks the packets of other formats.

    Args:
        path: the file.
        form: the names of its format, of FFmpeg.
    """

    def __init__(self, path: Path, form: frozenset[str]) -> None:
        self._path = path
        self._rule = next((rule for name, rule in _FORMATS.items() if name in form), None)
        self._start: int | None = None
        self._end = 0

    def before(self, packet: Any) -> bool:
        """Whether a hole stands right before a packet; of each packet it is asked once."""
        start, end = self._start, self._end
        if packet.pos is None or self._rule is None:
            return False
        if packet.pos == start:  # one of several in a block
            self._end += packet.size
            return False
        self._start, self._end = packet.pos, packet.pos + packet.size
        step, starts = self._rule
        if start is None or packet.pos - end < starts.stop:
            return False
        between = _part(self._path, end, packet.pos - end)
        return not any(_are_elements(between, step, start) for start in starts)


def _are_elements(data: bytes, step: _Step, at: int) -> bool:
    """Whether bytes are elements one after another from a place on, and maybe a last one's head."""
    while at < len(data):
        element = step(data, at)
        if element is None:
            return False
        begins, at = element
        if begins == len(data):
            return True
    return at == len(data)


def _matroska(data: bytes, at: int) -> tuple[int, int] | None:
    """RFC 8794, 4 to 6, and RFC 9559, 5."""
    kind = data[at : at + _length(data[at])]
    width = _length(data[at + len(kind)]) if at + len(kind) < len(data) else 0
    begins = at + len(kind) + width
    if kind in _HOLDERS:
        return begins, begins
    passed = kind in _BLOCKS and begins < len(data)  # FFmpeg has gone past a packet
    if kind not in _LEAVES or not width or passed:
        return None
    size = int.from_bytes(data[begins - width : begins]) & ((1 << 7 * width) - 1)
    return begins, begins + size


def _length(first: int) -> int:
    """How many bytes a number has that begins with this one; 0: it is none."""
    return 9 - first.bit_length()


def _avi(data: bytes, at: int) -> tuple[int, int] | None:
    kind, begins = data[at : at + 4], at + 8
    if not kind.rstrip(b" ").isalnum() or begins > len(data):
        return None
    if kind in (b"RIFF", b"LIST"):
        return begins + 4, begins + 4
    size = int.from_bytes(data[at + 4 : begins], "little")
    if size and kind.endswith((b"dc", b"db", b"wb")) and begins < len(data):
        return None  # FFmpeg has gone past a packet; one without data is a frame that is not there
    return begins, begins + size + size % 2


def _flv(data: bytes, at: int) -> tuple[int, int] | None:
    if data[at] not in (8, 9, 18) or at + 11 > len(data):  # sound, picture, text
        return None
    size = int.from_bytes(data[at + 1 : at + 4])
    return at + 11, at + 11 + size + 4


_FORMATS: dict[str, tuple[_Step, range]] = {
    # FFmpeg's position of a packet is before some bytes of its header, so that the position and its
    # size are short of its end: in Matroska by 4 or more, in FLV by 12 to 20 and 4 behind the data.
    "matroska": (_matroska, range(4, 64)),
    "avi": (_avi, range(10)),
    "flv": (_flv, range(12, 25)),
}
"""How to find the next element, and how many bytes behind a packet the first may begin. What is not
longer than these is no hole."""
