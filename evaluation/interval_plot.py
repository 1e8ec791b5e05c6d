"""Differences with their intervals against a limit, as SVG: a line each, and its verdict."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from icnet_deploy.evaluation.budgets import Budget
from icnet_deploy.evaluation.confidence.differences import Differences, Interval, Seen
from icnet_deploy.evaluation.verdicts import Verdict
from icnet_deploy.report.html import Html, tag
from icnet_deploy.report.svg import (
    WIDTH,
    Scale,
    bar,
    drawing,
    hover,
    text,
    upright,
    whisker,
    x_axis,
)
from icnet_deploy.report.tables import signed

_ROW, _HEAD, _TOP, _BELOW = 22, 22, 24, 48  # heights, in units of the viewBox, as all that follow
_THICK, _RADIUS = 8, 4  # of a bar, and of the mark on its value
_LETTER, _LONGEST = 6.9, 32  # the mean width of a letter, of a wide font; letters of a name
_NUMBER, _WORD = 64, 96  # the columns at the right

_FARTHEST = 6
"""The axis reaches to this many limits, or this many times a usual interval, and no farther."""

_ROOM = 1.25  # the axis reaches so much beyond a limit: what is past it needs room

_STYLES = {
    Verdict.WITHIN: ("within", "pale"),
    Verdict.PAST: ("past", "pale"),
    Verdict.UNDECIDED: ("undecided", "faint"),
    None: ("first", "pale"),
}
"""The colour of a verdict, and how strong its bar is."""


@dataclass(frozen=True)
class Bar:
    """A difference to be drawn.

    Attributes:
        name: of what differs.
        interval: by how much; what is not a number has no bar.
        verdict: what a limit says of it; None: it is held to none.
        seen: of a class, on how much it was seen; one that was hardly seen sets no axis.
    """

    name: str
    interval: Interval
    verdict: Verdict | None
    seen: Seen | None = None


@dataclass(frozen=True)
class _Panel:
    """Bars that are held to one limit.

    Attributes:
        rows: its bars.
        limit: in their unit, from 0 on, or None.
        two_sided: whether a rise is held to it, too.
    """

    rows: Sequence[Bar]
    limit: float | None
    two_sided: bool

    def limits(self) -> list[float]:
        """Where the limit is drawn: below zero, and above if a rise is held to it."""
        if self.limit is None:
            return []
        return [-self.limit, self.limit] if self.two_sided else [-self.limit]


def interval_plot(
    rows: Sequence[Bar],
    limit: float | None,
    two_sided: bool = False,
    unit: str = "points",
    title: str = "differences and their intervals",
) -> Html:
    """Draws a line for each difference: a bar from zero, its interval as a whisker, its verdict.

    It stands in a page, and by `report.svg.alone` as a file. A whisker that leaves the plot ends in
    an arrow.

    Args:
        rows: from above to below.
        limit: by how much the first may lose, in `unit`, from 0 on; None: there is no limit.
        two_sided: whether it may gain no more than that, either.
        unit: of all numbers.
        title: stands above it.
    """
    return _plot([_Panel(rows, limit, two_sided)], unit, title)


def difference_plot(
    differences: Differences,
    budget: Budget | None = None,
    title: str = "differences and their intervals",
) -> Html:
    """Draws mIoU and every class, each held to the budget's limit for it.

    Args:
        differences: of two models.
        budget: what is allowed, or None: nothing is held to a limit.
        title: stands above it.
    """
    found = budget.judge(differences).findings if budget else ()
    verdicts = {finding.what: finding.verdict for finding in found}
    mean = Bar("mIoU", differences.miou, verdicts.get("mIoU"))
    classes = [
        Bar(
            name if differences.seen[name].enough() else f"{name} (few)",
            interval,
            verdicts.get(name),
            differences.seen[name],
        )
        for name, interval in differences.classes.items()
    ]
    if budget is None:
        return _plot([_Panel([mean, *classes], None, False)], "points", title)
    panels = [
        _Panel([mean], budget.miou_points, budget.miou_rises),
        _Panel(classes, budget.class_points, budget.class_rises),
    ]
    return _plot(panels, "points", title)


def _plot(panels: Sequence[_Panel], unit: str, title: str) -> Html:
    rows = [row for panel in panels for row in panel.rows]
    names = min(max((len(row.name) for row in rows), default=0), _LONGEST)
    word = _WORD if any(row.verdict for row in rows) else 0
    low, high = _reach(panels)
    x = Scale(low, high, round(names * _LETTER) + 24, WIDTH - _NUMBER - word - 8)
    digits = max(2, 2 - math.floor(math.log10(high - low)))
    top, parts = float(_TOP), [text(title, 12, 18, "start", "name")]
    for panel in panels:
        below = top + _HEAD + _ROW * len(panel.rows)
        parts += _ground(panel, x, top + _HEAD, below)
        for index, row in enumerate(panel.rows):
            middle = top + _HEAD + _ROW * (index + 0.5)
            parts += _line(row, panel, x, middle, unit, digits)
        top = below
    ticks = [(tick, f"{tick:+.9g}" if abs(tick) > 1e-9 else "0") for tick in x.ticks()]
    words = f"{unit}; mark: measured difference, line: its interval"
    parts += x_axis(x, ticks, top, words)
    return drawing(title, (WIDTH, round(top + _BELOW)), parts)


def _reach(panels: Sequence[_Panel]) -> tuple[float, float]:
    """The ends of the axis: the limits with room beyond them, and the intervals unless endless."""
    ends = [pair for panel in panels for pair in _ends(panel)]
    usual = max(map(_usual, panels)) or max((max(-low, high) for low, high in ends), default=0.0)
    usual = usual or 1.0
    most = _FARTHEST * usual
    wanted = [0.0, *(_ROOM * limit for panel in panels for limit in panel.limits())]
    wanted += [min(max(end, -most), most) for pair in ends for end in pair]
    low, high = min(wanted), max(wanted)
    if low == high:
        low, high = -usual, usual
    room = 0.06 * (high - low)
    return (low - room if low > -most else low), (high + room if high < most else high)


def _ends(panel: _Panel) -> list[tuple[float, float]]:
    """The intervals that an axis must hold: of what was seen enough, unless nothing was."""
    seen = [row for row in panel.rows if row.seen is None or row.seen.enough()] or panel.rows
    pairs = [(row.interval.low, row.interval.high) for row in seen]
    return [(low, high) for low, high in pairs if math.isfinite(low) and math.isfinite(high)]


def _usual(panel: _Panel) -> float:
    """How far from zero a panel's differences are expected: at its limit, or where most end."""
    reaches = [max(-low, high) for low, high in _ends(panel)]
    return panel.limit or median(reaches or [0.0])


def _ground(panel: _Panel, x: Scale, top: float, below: float) -> Iterator[Html]:
    """What lies behind the bars of a panel: the grid, zero, and the limit."""
    sides = list(zip(panel.limits(), (x.low, x.high), ("end", "start"), strict=False))
    for limit, end, _ in sides:
        yield bar((x(limit), x(end)), (top, below), "beyond")
    for tick in x.ticks():
        yield upright(x(tick), top, below)
    yield upright(x(0), top, below, "zero")
    for limit, _, anchor in sides:
        words = f"limit {limit:+g}" if limit else "limit 0"
        yield upright(x(limit), top - 4, below, "limit")
        yield text(words, x(limit), top - 8, anchor if panel.two_sided else "middle")


def _line(
    row: Bar, panel: _Panel, x: Scale, middle: float, unit: str, digits: int
) -> Iterator[Html]:
    """One difference: its name, bar, whisker and mark, number and verdict."""
    value, low, high = row.interval.value, row.interval.low, row.interval.high
    colour, strength = _STYLES[row.verdict]
    name = row.name
    if len(name) > _LONGEST:  # a file's ending and what runs it tell it from others
        name = f"{name[: _LONGEST // 2 - 1]}…{name[-_LONGEST // 2 :]}"
    word = _word(row, panel)
    drawn = [text(name, x.start - 12, middle + 4, "end", "name")]
    if not math.isnan(value):
        place = x(min(max(value, x.low), x.high))
        ends = (middle - _THICK / 2, middle + _THICK / 2)
        drawn.append(bar((x(0), place), ends, f"{colour} {strength}"))
        if not math.isnan(low + high):
            drawn += whisker(x, (low, high), middle, colour)
        if x.low <= value <= x.high:
            drawn.append(_mark(row.verdict, place, middle))
    right = x.end + _NUMBER
    drawn.append(text(signed(value, digits), right, middle + 4, "end", "name"))
    if word:
        drawn.append(text(word, right + 12, middle + 4, "start", colour))
    yield hover(_words(row, panel, word, unit, digits), drawn)


def _mark(verdict: Verdict | None, x: float, y: float) -> Html:
    """The mark on a value: a disc, a ring where it is undecided, a diamond where it is past."""
    if verdict is Verdict.PAST:
        side = 2 * _RADIUS
        return tag(
            "rect",
            x=round(x - _RADIUS, 1),
            y=y - _RADIUS,
            width=side,
            height=side,
            transform=f"rotate(45 {x} {y})",
            class_="past",
        )
    colour = _STYLES[verdict][0]
    kind = f"hollow {colour}" if verdict is Verdict.UNDECIDED else colour
    return tag("circle", cx=x, cy=y, r=_RADIUS, class_=kind)


def _word(row: Bar, panel: _Panel) -> str:
    """A verdict; a rise that would be too much of a fall is said, and fails nothing."""
    if row.verdict is None:
        return ""
    one_sided = panel.limit is not None and not panel.two_sided
    risen = row.verdict is Verdict.WITHIN and one_sided and row.interval.value > (panel.limit or 0)
    return f"{row.verdict}, risen" if risen else str(row.verdict)


def _words(row: Bar, panel: _Panel, word: str, unit: str, digits: int) -> str:
    """All numbers of a difference, for who points at it."""
    interval = row.interval
    value, low, high = (
        signed(one, digits) for one in (interval.value, interval.low, interval.high)
    )
    sentences = [f"{row.name}: {value} {unit}, between {low} and {high}"]
    if word:
        limits = " and ".join(f"{limit:+g}" for limit in panel.limits())
        sentences.append(f"{word}; the limit is {limits}" if limits else word)
    groups = f"{interval.groups} group{'s' if interval.groups != 1 else ''}"
    worth = f"{interval.effective_images:.0f} independent images"
    sentences.append(f"from {groups}, which count as {worth}")
    if row.seen is not None:
        sentences.append(f"seen on {row.seen.images} {row.seen.of} and {row.seen.pixels:,} pixels")
    return "; ".join(sentences)
