"""When each frame of a video is shown."""

from __future__ import annotations

from fractions import Fraction
from typing import Any


class Clock:
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
        self._in_a_row = 0
        self.made_up = 0

    def __call__(self, frame: Any) -> tuple[Fraction, Fraction]:
        """The time and the duration of the next frame, in seconds."""
        stamp = self._stamp(frame)
        time = None if stamp is None else stamp * self._time_base
        if self._start is None:
            self._start = Fraction(0) if time is None else time
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
        stamps: dict[str, int | None] = {"pts": frame.pts, "dts": frame.dts}
        if self._packets_only:
            return stamps["dts"]
        for kind, other in (("dts", "pts"), ("pts", "dts")):
            stamp = stamps[kind]
            if stamp is not None:
                self._failed[kind] += kind in self._last and stamp <= self._last[kind]
            else:
                stamp = stamps[other]
            if stamp is not None:
                self._last[kind] = stamp
        better = self._failed["pts"] <= self._failed["dts"] or stamps["dts"] is None
        return stamps["pts"] if better and stamps["pts"] is not None else stamps["dts"]
