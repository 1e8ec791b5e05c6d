"""Drawings as SVG: the ground and the style of all of them, axes, bars, and words that hover."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from icnet_deploy.report.html import PALETTE, Html, tag

WIDTH = 760
"""Of a drawing, in units of its viewBox, unless it needs another."""

_STYLE = """
svg.drawing { display: block; width: 760px; min-width: 30rem; max-width: 100%; height: auto;
  font-family: system-ui, "Segoe UI", Roboto, sans-serif; }
.drawing .ground { fill: var(--card, #ffffff); }
.drawing text { fill: var(--quiet, #5d6670); font-size: 12px; }
.drawing text.name { fill: var(--ink, #1d2126); }
.drawing line { stroke: var(--line, #dde1e5); }
.drawing line.zero, .drawing line.thin, .drawing line.quiet { stroke: var(--quiet, #5d6670); }
.drawing line.thin { stroke-width: .75; }
.drawing line.strong { stroke: var(--ink, #1d2126); stroke-width: 2; }
.drawing line.limit { stroke: var(--other, #b4501a); stroke-dasharray: 5 3; }
.drawing polyline { stroke-width: 1.75; }
.drawing .first { fill: var(--mark, #2457b8); }
.drawing .second { fill: var(--other, #b4501a); }
.drawing .third { fill: var(--quiet, #5d6670); }
.drawing polyline, .drawing line.second, .drawing line.first { fill: none; }
.drawing polyline.first, .drawing line.first { fill: none; stroke: var(--mark, #2457b8); }
.drawing polyline.second, .drawing line.second { fill: none; stroke: var(--other, #b4501a); }
.drawing polyline.second { stroke-dasharray: 5 3; }
.drawing .rim { stroke: var(--card, #ffffff); }
.drawing .hollow { fill: var(--card, #ffffff); stroke: var(--mark, #2457b8); }
.drawing .hollow.second { stroke: var(--other, #b4501a); }
.drawing .pale { opacity: .55; }
.drawing .faint { opacity: .3; }
.drawing .within { fill: var(--good, #12693f); }
.drawing .past { fill: var(--bad, #a31621); }
.drawing .undecided { fill: var(--unsure, #8f5f00); }
.drawing .hollow.undecided { fill: var(--card, #ffffff); stroke: var(--unsure, #8f5f00); }
.drawing .whisker { fill: none; stroke-width: 1.5; }
.drawing .whisker.within { stroke: var(--good, #12693f); }
.drawing .whisker.past { stroke: var(--bad, #a31621); }
.drawing .whisker.undecided { stroke: var(--unsure, #8f5f00); }
.drawing .beyond { fill: var(--bad, #a31621); opacity: .07; }
""".replace('"', "'")
"""First, second and third: the colours of what is set against one another. Within, past and
undecided: those of verdicts; what lies beyond a limit is shaded."""


def drawing(label: str, size: tuple[float, float], parts: Iterable[str]) -> Html:
    """A drawing on a ground of its own, which stands alone as a file and in a page.

    Args:
        label: what it shows, for who cannot see it.
        size: (width, height) in units of the viewBox.
        parts: its elements.
    """
    width, height = size
    return tag(
        "svg",
        tag("style", Html(_STYLE)),
        tag("rect", class_="ground", width=width, height=height),
        parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        class_="drawing",
        role="img",
        aria_label=label,
    )


def alone(drawn: Html) -> str:
    """A drawing as a file of its own, light or dark as its reader's screen is."""
    return drawn.replace("<style>", f"<style>{PALETTE}", 1) + "\n"


@dataclass(frozen=True)
class Scale:
    """A value's place along an axis.

    Attributes:
        low, high: the values at its ends.
        start, end: their places in units of the viewBox; the start may lie below the end.
        logarithmic: equal distances are equal ratios; `low` is above 0 then.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value, to a tenth of a unit."""
        if self.logarithmic:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + (self.end - self.start) * share, 1)

    def ticks(self) -> list[float]:
        """Round values along it: 1, 2, 5 times powers of ten, or, where few, a nice step apart."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = [n * 10.0**power for power in powers for n in (1, 2, 5)]
            found = [tick for tick in found if self.low <= tick <= self.high]
            if len(found) >= 3:
                return found
        step = nice_step(self.high - self.low)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [n * step for n in range(first, last + 1)]


def text(words: str, x: float, y: float, anchor: str, kind: str = "tick") -> Html:
    """Words in a drawing; `anchor` is `start`, `middle` or `end`."""
    return tag("text", words, x=round(x, 1), y=round(y, 1), text_anchor=anchor, class_=kind)


def across(y: float, left: float, right: float, kind: str = "grid") -> Html:
    """A level line."""
    return tag("line", x1=left, x2=right, y1=round(y, 1), y2=round(y, 1), class_=kind)


def upright(x: float, top: float, bottom: float, kind: str = "grid") -> Html:
    """A line from above to below."""
    return tag("line", x1=round(x, 1), x2=round(x, 1), y1=top, y2=bottom, class_=kind)


def bar(x: tuple[float, float], y: tuple[float, float], kind: str) -> Html:
    """A filled box between two places on each axis, in any order; at least half a unit wide."""
    (left, right), (top, bottom) = sorted(x), sorted(y)
    return tag(
        "rect",
        x=round(left, 1),
        y=round(top, 1),
        width=round(max(right - left, 0.5), 1),
        height=round(bottom - top, 1),
        class_=kind,
    )


def whisker(scale: Scale, ends: tuple[float, float], y: float, kind: str) -> Iterator[Html]:
    """A level line between two values with a cap at each; an end beyond the scale is an arrow.

    Args:
        scale: from left to right.
        ends: the lower value, and the higher.
        y: the place of the line.
        kind: its colour.
    """
    kind, half = f"whisker {kind}", 4
    left, right = (scale(min(max(end, scale.low), scale.high)) for end in ends)
    yield across(y, left, right, kind)
    for value, x in zip(ends, (left, right), strict=True):
        if scale.low <= value <= scale.high:
            yield upright(x, y - half, y + half, kind)
        else:
            back = round(x + half if value < scale.low else x - half, 1)
            points = f"{back},{y - half} {x},{y} {back},{y + half}"
            yield tag("polyline", points=points, class_=kind)


def hover(words: str, *drawn: str | Iterable[str]) -> Html:
    """Something that says more when pointed at."""
    return tag("g", tag("title", words), *drawn)


def y_axis(
    scale: Scale,
    ticks: Sequence[tuple[float, str]],
    left: float,
    right: float,
    zero: float | None = None,
) -> Iterator[Html]:
    """Level grid lines with their words at the left; the line of `zero` is darker."""
    for value, words in ticks:
        yield across(scale(value), left, right, "zero" if value == zero else "grid")
        yield text(words, left - 8, scale(value) + 4, "end")


def x_axis(
    scale: Scale, ticks: Sequence[tuple[float, str]], below: float, title: str
) -> Iterator[Html]:
    """Words below a plot whose lower edge is `below`, and under them what the axis means."""
    for value, words in ticks:
        yield text(words, scale(value), below + 18, "middle")
    yield text(title, (scale.start + scale.end) / 2, below + 38, "middle")


def nice_step(span: float) -> float:
    """The distance of some four to eight ticks: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(span / 4))
    return next(nice * power for nice in (5, 2, 1) if span / (nice * power) >= 4)


def nice_above(value: float) -> float:
    """The first tick from a value on, of an axis from 0."""
    step = nice_step(value)
    return math.ceil(value / step) * step


def round_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(value, 1e-6)))
    return next(nice * power for nice in (1, 2, 5, 10) if value <= nice * power * (1 + 1e-9))
