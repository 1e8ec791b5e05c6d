"""The ICNet paper's figure 1 for what was timed: frames a second against mIoU, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from icnet_deploy.benchmarks.measurement import SCOPES, Measurement
from icnet_deploy.benchmarks.measurement_tables import device_words, median_ms
from icnet_deploy.benchmarks.plots.known_scores import KnownScore, find_score, protocol_line
from icnet_deploy.errors import InputError
from icnet_deploy.files import write_text
from icnet_deploy.report.html import PALETTE, Html, svg, svg_text, tag

REAL_TIME = 30
"""Frames a second, from which on the paper calls a network real-time."""

_STYLE = """
svg.speed { display: block; width: 760px; min-width: 30rem; max-width: 100%; height: auto;
  font-family: system-ui, "Segoe UI", Roboto, sans-serif; }
.speed .ground { fill: var(--card, #ffffff); }
.speed text { fill: var(--quiet, #5d6670); font-size: 12px; }
.speed text.name { fill: var(--ink, #1d2126); }
.speed line { stroke: var(--line, #dde1e5); }
.speed line.zero, .speed line.leader { stroke: var(--quiet, #5d6670); }
.speed line.leader { stroke-width: .75; }
.speed line.limit { stroke: var(--other, #b4501a); stroke-dasharray: 5 3; }
.speed circle { fill: var(--mark, #2457b8); stroke: var(--card, #ffffff); }
.speed circle.partial { fill: var(--card, #ffffff); stroke: var(--mark, #2457b8); }
""".replace('"', "'")

_WIDTH, _LEFT, _RIGHT = 760, 60, 736  # in units of the viewBox, as all that follow
_TOP, _BOTTOM, _HEIGHT = 34, 370, 424
_RADIUS, _LINE, _LETTER = 5, 15, 6.9  # the last: the mean width of a letter, of a wide font

_SPAN = 5.0
"""The least mIoU from the lower to the upper edge: noise of 0.02 points must not fill a plot."""


class Point(NamedTuple):
    """A subject in the plot.

    Attributes:
        label: what stands beside it.
        rate: frames a second, from the median of its latency.
        miou: percent.
        partial: its scope is less than from image to labels.
        told: all about it, when pointed at.
    """

    label: str
    rate: float
    miou: float
    partial: bool
    told: str


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def points(
    found: Sequence[Measurement], scores: Sequence[KnownScore]
) -> tuple[list[Point], list[str]]:
    """What is drawn, and a sentence for each that is not, or whose score is another file's."""
    drawn, notes = [], []
    for each in found:
        if each.kind != "latency":
            continue
        score = find_score(each, scores)
        where = f"{each.name} on {device_words(each)}"
        if score is None:
            notes.append(f"Not drawn, since its mIoU is not known: {where}.")
            continue
        if score.sha256 != each.subject.get("sha256"):
            notes.append(
                f"{where}: the mIoU is that of another file of this name and precision, "
                f"{score.sha256[:12]}."
            )
        median = median_ms(each)
        told = (
            f"{where}: {1e3 / median:.1f} frames a second ({median:.1f} ms), mIoU "
            f"{score.miou_percent:.2f} % ({protocol_line(score)}, on {score.runtime}); "
            f"{each.scope}: {SCOPES[each.scope]}"
        )
        runtime = each.subject.get("runtime")
        label = each.name if not runtime or runtime in each.name else f"{each.name}, {runtime}"
        partial = each.scope != "image-to-labels"
        drawn.append(Point(label, 1e3 / median, score.miou_percent, partial, told))
    return drawn, notes


def speed_plot(drawn: Sequence[Point], scored: str) -> Html:
    """The plot, for a page whose style names the colours.

    Args:
        drawn: at least one.
        scored: what the mIoU is of, in words.
    """
    fastest = _nice_above(1.05 * max(REAL_TIME, *(each.rate for each in drawn)))
    low, high = _reach([each.miou for each in drawn])

    def place(each: Point) -> tuple[float, float]:
        x = _LEFT + (_RIGHT - _LEFT) * each.rate / fastest
        return round(x, 1), round(_BOTTOM - (_BOTTOM - _TOP) * (each.miou - low) / (high - low), 1)

    parts: list[Html] = [*_axes(fastest, low, high, scored)]
    parts += _labels(drawn, [place(each) for each in drawn])
    for each in drawn:
        x, y = place(each)
        kind = "partial" if each.partial else "whole"
        dot = tag("circle", cx=x, cy=y, r=_RADIUS, class_=kind)
        parts.append(tag("g", tag("title", each.told), dot))
    return svg("speed", "frames a second against mIoU", (_WIDTH, _HEIGHT), _STYLE, parts)


def write_plot(path: Path, found: Sequence[Measurement], scores: Sequence[KnownScore]) -> None:
    """Writes the plot as a file of its own, light or dark as its reader's screen is.

    Raises:
        InputError: no score is of what was timed.
        OutputError: the file cannot be written.
    """
    drawn, notes = points(found, scores)
    if not drawn:
        raise InputError(f"{path} would be empty: {' '.join(notes)}")
    plot = speed_plot(drawn, protocol_line(scores[0]))
    write_text(path, plot.replace("<style>", f"<style>{PALETTE}", 1) + "\n")
    for note in notes:
        print(note)


def _axes(fastest: float, low: float, high: float, scored: str) -> Iterator[Html]:
    steps = round((high - low) / nice_step(high - low))
    for number in range(steps + 1):
        y = round(_BOTTOM - (_BOTTOM - _TOP) * number / steps, 1)
        yield tag("line", x1=_LEFT, x2=_RIGHT, y1=y, y2=y, class_="grid" if number else "zero")
        yield svg_text(f"{low + number * (high - low) / steps:g}", _LEFT - 8, y + 4, "end")
    yield svg_text(f"mIoU %, {scored}", _LEFT - 40, _TOP - 16, "start")
    step = nice_step(fastest)
    for number in range(round(fastest / step) + 1):
        x = _LEFT + (_RIGHT - _LEFT) * number * step / fastest
        yield svg_text(f"{number * step:g}", x, _BOTTOM + 18, "middle")
    x = round(_LEFT + (_RIGHT - _LEFT) * REAL_TIME / fastest, 1)
    yield tag("line", x1=x, x2=x, y1=_TOP, y2=_BOTTOM, class_="limit")
    yield svg_text("real time", x - 6, _TOP + 14, "end")
    words = "frames a second, one at a time, by the median; hollow: a part of the way only"
    yield svg_text(words, (_LEFT + _RIGHT) / 2, _BOTTOM + 40, "middle")


def _labels(drawn: Sequence[Point], places: Sequence[tuple[float, float]]) -> Iterator[Html]:
    """Each label at the nearest free place by its point, with a leader where that is far.

    From right to left, and each begins above or below its point: so no label lies where a leader
    of a later one has to pass.
    """
    taken = [_Box(x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS) for x, y in places]
    for each, (x, y) in sorted(zip(drawn, places, strict=True), key=lambda pair: pair[1])[::-1]:
        box, leader = _free_place(x, y, _LETTER * len(each.label), taken)
        taken.append(box)
        if leader is not None:
            taken.append(leader)
            end = box.bottom if box.bottom < y else box.top
            yield tag("line", x1=x, y1=y, x2=x, y2=end, class_="leader")
        yield svg_text(each.label, box.left, box.bottom - 4, "start", "name")


def _free_place(
    x: float, y: float, width: float, taken: Sequence[_Box]
) -> tuple[_Box, _Box | None]:
    """The first place by a point where neither label nor leader meets anything; else the label."""
    second = None
    for left, top, far in _around(x, y, width):
        box = _Box(left, top, left + width, top + _LINE)
        if box.left < _LEFT or box.right > _RIGHT or box.top < _TOP or box.bottom > _BOTTOM:
            continue
        if any(other.meets(box) for other in taken):
            continue
        leader = _leader(x, y, box) if far else None
        if leader is None or not any(other.meets(leader) for other in taken):
            return box, leader
        second = second or (box, leader)
    return second or (_Box(x, y, x + width, y + _LINE), None)  # too wide, or the plot is full


def _leader(x: float, y: float, box: _Box) -> _Box:
    """The upright line from a point's rim to a label above or below it."""
    if box.bottom < y:
        return _Box(x - 1, box.bottom, x + 1, y - _RADIUS - 0.5)
    return _Box(x - 1, y + _RADIUS + 0.5, x + 1, box.top)


def _around(x: float, y: float, width: float) -> Iterator[tuple[float, float, bool]]:
    """The upper left corners that a label may take, the nearest first, and whether that is far."""
    yield x + _RADIUS + 4, y - _LINE / 2, False
    for start in (x - _RADIUS, x - width / 2, x - width + _RADIUS):
        left = max(_LEFT, min(start, _RIGHT - width))
        for distance in range(24):
            yield left, y - _RADIUS - 3 - (distance + 1) * _LINE, distance > 0
            yield left, y + _RADIUS + 3 + distance * _LINE, distance > 0


def _reach(values: Sequence[float]) -> tuple[float, float]:
    """The lower and the upper edge: round numbers around all values, `_SPAN` apart or more."""
    middle, half = (min(values) + max(values)) / 2, (max(values) - min(values)) / 2
    half = max(half * 1.15, _SPAN / 2)
    step = nice_step(2 * half)
    low = math.floor((middle - half) / step) * step
    return max(0.0, low), min(100.0, math.ceil((middle + half) / step) * step)


def nice_step(span: float) -> float:
    """The distance of some four to eight ticks: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(span / 4))
    return next(nice * power for nice in (5, 2, 1) if span / (nice * power) >= 4)


def _nice_above(value: float) -> float:
    step = nice_step(value)
    return math.ceil(value / step) * step
