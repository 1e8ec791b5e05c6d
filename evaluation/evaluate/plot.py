"""The ICNet paper's figure 7 as SVG: accuracy by the size of the true region, of one model or two.

Below the curves stands how many regions each bin holds, since a mean over three regions looks like
one over a thousand; and what is larger than the axis has a place of its own, beside the curve.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from icnet_deploy.data import RegionAccuracy
from icnet_deploy.report.html import Html, svg, svg_text, tag

FEW = 10
"""A bin with fewer regions than this is drawn faint."""

_BIN, _LIMIT = RegionAccuracy.bin_pixels, RegionAccuracy.limit
_LEFT, _STEP, _GAP, _OPEN = 56, 15, 14, 30  # in units of the viewBox, as all that follow
_AXIS = _LEFT + _LIMIT // _BIN * _STEP  # where the axis of sizes ends
_RIGHT = _AXIS + _GAP + _OPEN
_CURVES, _DIFFERENCE, _COUNTS = 220, 110, 56  # heights of the three panels
_BETWEEN = 34

_STYLE = """
svg.regions { display: block; width: 760px; min-width: 30rem; max-width: 100%; height: auto;
  font-family: system-ui, "Segoe UI", Roboto, sans-serif; }
.regions .ground { fill: var(--card, #ffffff); }
.regions text { fill: var(--quiet, #5d6670); font-size: 12px; }
.regions text.name { fill: var(--ink, #1d2126); }
.regions line { stroke: var(--line, #dde1e5); }
.regions line.zero { stroke: var(--quiet, #5d6670); }
.regions polyline { fill: none; stroke-width: 1.75; }
.regions .first { stroke: var(--mark, #2457b8); fill: var(--mark, #2457b8); }
.regions .second { stroke: var(--other, #b4501a); fill: var(--other, #b4501a); }
.regions polyline.first, .regions polyline.second { fill: none; }
.regions polyline.second { stroke-dasharray: 5 3; }
.regions .few { fill: var(--card, #ffffff); }
.regions .bar { fill: var(--quiet, #5d6670); opacity: .55; }
.regions .up { fill: var(--mark, #2457b8); }
.regions .down { fill: var(--other, #b4501a); }
.regions .up.few, .regions .down.few { opacity: .35; }
""".replace('"', "'")


@dataclass(frozen=True)
class Curve:
    """One model's accuracy by the size of regions.

    Attributes:
        name: of the model.
        bins: what `Score.to_dict` calls `regions`: a bin's `from_pixels`, `to_pixels` (None for
            the one without an end), how many `regions`, and their `accuracy_percent`.
    """

    name: str
    bins: Sequence[Mapping[str, Any]]


def region_plot(*curves: Curve) -> Html:
    """A plot that stands alone as a file and in a report; its points say their numbers.

    Args:
        curves: one, or two over the same regions, whose difference (the first minus the second)
            gets a panel of its own.
    """
    top = 26 + 18 * len(curves)
    parts: list[Html] = [*_names(curves), *_accuracy(curves, top)]
    top += _CURVES + _BETWEEN
    if len(curves) == 2:
        parts += _differences(curves[0], curves[1], top)
        top += _DIFFERENCE + _BETWEEN
    parts += _counts(curves[0], top)
    top += _COUNTS
    parts += _sizes(top)
    height = top + 48
    return svg(
        "regions",
        "mean share of right pixels by the size of the true region",
        (_RIGHT + 16, height),
        _STYLE,
        parts,
    )


def bin_words(one: Mapping[str, Any]) -> str:
    """The sizes of a bin in words."""
    start, end = one["from_pixels"], one["to_pixels"]
    return f"{start:,} and more" if end is None else f"{start:,} to {end - 1:,}"


def _x(one: Mapping[str, Any]) -> float:
    """The middle of a bin."""
    if one["to_pixels"] is None:
        return _AXIS + _GAP + _OPEN / 2
    return float(_LEFT + (one["from_pixels"] // _BIN + 0.5) * _STEP)


def _across(y: float, class_: str = "grid") -> Html:
    return tag("line", x1=_LEFT, x2=_RIGHT, y1=round(y, 1), y2=round(y, 1), class_=class_)


def _told(words: str, *drawn: Html) -> Html:
    """Something that says its numbers when pointed at."""
    return tag("g", tag("title", words), *drawn)


def _marker(order: str, x: float, y: float, few: bool) -> Html:
    kind = f"{order} few" if few else order
    if order == "first":
        return tag("circle", cx=x, cy=y, r=3.5, class_=kind)
    return tag("rect", x=x - 3, y=y - 3, width=6, height=6, class_=kind)


def _orders(curves: Sequence[Curve]) -> Iterator[tuple[str, Curve]]:
    return zip(("first", "second"), curves, strict=False)


def _names(curves: Sequence[Curve]) -> Iterator[Html]:
    for row, (order, curve) in enumerate(_orders(curves)):
        y = 14 + 18 * row
        ends = f"{_LEFT},{y} {_LEFT + 26},{y}"
        yield tag("polyline", points=ends, class_=order)
        yield _marker(order, _LEFT + 13, y, False)
        yield svg_text(curve.name, _LEFT + 34, y + 4, "start", "name")


def _accuracy(curves: Sequence[Curve], top: float) -> Iterator[Html]:
    def up(share: float) -> float:
        return round(top + _CURVES * (1 - share / 100), 1)

    for share in (0, 25, 50, 75, 100):
        yield _across(up(share))
        yield svg_text(f"{share} %", _LEFT - 8, up(share) + 4, "end")
    yield svg_text("share of a region's pixels that is right, mean", _LEFT, top - 7, "start")
    for order, curve in _orders(curves):
        for run in _runs(curve.bins):
            points = " ".join(f"{_x(b)},{up(b['accuracy_percent'])}" for b in run)
            yield tag("polyline", points=points, class_=order)
    for order, curve in _orders(curves):
        for one in curve.bins:
            share, many = one["accuracy_percent"], one["regions"]
            words = f"{curve.name}, {bin_words(one)} pixels: {share:.1f} % of {many} regions"
            yield _told(words, _marker(order, _x(one), up(share), many < FEW))


def _runs(bins: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Neighbouring bins: a line across an empty bin, or to the endless one, would be made up."""
    run: list[Mapping[str, Any]] = []
    for one in bins:
        if run and (one["to_pixels"] is None or one["from_pixels"] != run[-1]["to_pixels"]):
            yield run
            run = []
        run.append(one)
    yield run


def _differences(first: Curve, second: Curve, top: float) -> Iterator[Html]:
    points = [
        a["accuracy_percent"] - b["accuracy_percent"]
        for a, b in zip(first.bins, second.bins, strict=True)
    ]
    reach = _round_up(max(map(abs, points), default=0))
    middle = top + _DIFFERENCE / 2
    for share in (-1, 0, 1):
        y = middle - share * _DIFFERENCE / 2
        yield _across(y, "grid" if share else "zero")
        yield svg_text(f"{share * reach:+g}" if share else "0", _LEFT - 8, y + 4, "end")
    words = f"{first.name} minus {second.name}, points"
    yield svg_text(words, _LEFT, top - 6, "start")
    for one, difference in zip(first.bins, points, strict=True):
        height = abs(difference) / reach * _DIFFERENCE / 2
        bar = tag(
            "rect",
            x=_x(one) - 5,
            y=round(middle - height if difference > 0 else middle, 1),
            width=10,
            height=round(height, 1),
            class_=("up" if difference > 0 else "down") + (" few" if one["regions"] < FEW else ""),
        )
        yield _told(
            f"{bin_words(one)} pixels: {difference:+.2f} points, {one['regions']} regions", bar
        )


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50, 100."""
    return next(nice for nice in (1, 2, 5, 10, 20, 50, 100) if value <= nice)


def _counts(curve: Curve, top: float) -> Iterator[Html]:
    """How many regions each bin holds, by powers of ten; a single one is half a power high."""
    powers = max((math.log10(one["regions"]) for one in curve.bins), default=0) + 0.5
    bottom = top + _COUNTS

    def height(many: int) -> float:
        return round(_COUNTS * (math.log10(many) + 0.5) / powers, 1)

    for power in range(math.floor(powers - 0.5) + 1):
        yield _across(bottom - height(10**power))
        yield svg_text(f"{10**power:,}", _LEFT - 8, bottom - height(10**power) + 4, "end")
    yield svg_text("number of regions", _LEFT, top - 6, "start")
    for one in curve.bins:
        many = one["regions"]
        bar = tag(
            "rect",
            x=_x(one) - 5,
            y=round(bottom - height(many), 1),
            width=10,
            height=height(many),
            class_="bar",
        )
        yield _told(f"{bin_words(one)} pixels: {many} regions", bar)
    yield _across(bottom, "zero")


def _sizes(top: float) -> Iterator[Html]:
    """The axis of sizes, below everything."""
    for pixels in range(0, _LIMIT, _LIMIT // 4):
        yield svg_text(f"{pixels:,}", _LEFT + pixels / _BIN * _STEP, top + 18, "middle")
    yield svg_text("more", _AXIS + _GAP + _OPEN / 2, top + 18, "middle")
    yield svg_text(f"{_LIMIT:,}", _AXIS, top + 18, "end")
    words = f"pixels of the true region, in bins of {_BIN:,}"
    yield svg_text(words, (_LEFT + _AXIS) / 2, top + 38, "middle")
