"""The ICNet paper's figure 7 as SVG: accuracy by the size of the true region, of one model or two.

Below the curves stands how many regions each bin holds, since a mean over three regions looks like
one over a thousand; and what is larger than the axis has a place of its own, beside the curve.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from icnet_deploy.data import RegionAccuracy
from icnet_deploy.report.html import Html, tag
from icnet_deploy.report.svg import (
    Scale,
    across,
    bar,
    drawing,
    hover,
    round_up,
    text,
    x_axis,
    y_axis,
)

FEW = 10
"""A bin with fewer regions than this is drawn faint."""

_Bin = Mapping[str, Any]
"""What `Score.to_dict` has in `regions`: `from_pixels`, `to_pixels` (None for the one without an
end), how many `regions`, and their `accuracy_percent`."""

_BIN, _LIMIT = RegionAccuracy.bin_pixels, RegionAccuracy.limit
_LEFT, _STEP, _GAP, _OPEN = 56, 15, 14, 30  # in units of the viewBox, as all that follow
_SIZES = Scale(0, _LIMIT, _LEFT, _LEFT + _LIMIT // _BIN * _STEP)
_BEYOND = _SIZES.end + _GAP + _OPEN / 2  # where the bin without an end is
_RIGHT = _SIZES.end + _GAP + _OPEN
_CURVES, _DIFFERENCE, _COUNTS = 220, 110, 56  # heights of the three panels
_BETWEEN = 34
_ORDERS = ("first", "second")  # the colours of the curves


def region_plot(curves: Mapping[str, Sequence[_Bin]]) -> Html:
    """A plot that stands alone as a file and in a report; its points say their numbers.

    Args:
        curves: a model's name -> its bins: one model, or two over the same regions, whose
            difference (the first minus the second) gets a panel of its own.
    """
    top = 26 + 18 * len(curves)
    parts = [*_names(curves), *_accuracy(curves, top)]
    top += _CURVES + _BETWEEN
    if len(curves) == 2:
        parts += _differences(curves, top)
        top += _DIFFERENCE + _BETWEEN
    below = top + _COUNTS
    parts += [*_counts(next(iter(curves.values())), below), *_sizes(below)]
    label = "mean share of right pixels, by the size of the true region"
    return drawing(label, (_RIGHT + 16, below + 48), parts)


def bin_words(one: _Bin) -> str:
    """The sizes of a bin in words."""
    start, end = one["from_pixels"], one["to_pixels"]
    return f"{start:,} and more" if end is None else f"{start:,} to {end - 1:,}"


def _x(one: _Bin) -> float:
    """The middle of a bin."""
    return _BEYOND if one["to_pixels"] is None else _SIZES(one["from_pixels"] + _BIN / 2)


def _bar(one: _Bin, y: tuple[float, float], kind: str, words: str) -> Html:
    """A bar of a bin."""
    x = _x(one)
    return hover(f"{bin_words(one)} pixels: {words}", bar((x - 5, x + 5), y, kind))


def _marker(order: str, x: float, y: float, few: bool = False) -> Html:
    kind = f"{order} hollow" if few else order
    if order == "first":
        return tag("circle", cx=x, cy=y, r=3.5, class_=kind)
    return tag("rect", x=x - 3, y=y - 3, width=6, height=6, class_=kind)


def _names(curves: Mapping[str, Sequence[_Bin]]) -> Iterator[Html]:
    for row, (order, name) in enumerate(zip(_ORDERS, curves, strict=False)):
        y = 14 + 18 * row
        yield tag("polyline", points=f"{_LEFT},{y} {_LEFT + 26},{y}", class_=order)
        yield _marker(order, _LEFT + 13, y)
        yield text(name, _LEFT + 34, y + 4, "start", "name")


def _accuracy(curves: Mapping[str, Sequence[_Bin]], top: float) -> list[Html]:
    up = Scale(0, 100, top + _CURVES, top)

    def line(order: str, run: Sequence[_Bin]) -> Html:
        points = " ".join(f"{_x(one)},{up(one['accuracy_percent'])}" for one in run)
        return tag("polyline", points=points, class_=order)

    def point(order: str, name: str, one: _Bin) -> Html:
        share, many = one["accuracy_percent"], one["regions"]
        words = f"{name}, {bin_words(one)} pixels: {share:.1f} % of {many} regions"
        return hover(words, _marker(order, _x(one), up(share), many < FEW))

    orders = list(zip(_ORDERS, curves.items(), strict=False))
    return [
        *y_axis(up, [(share, f"{share} %") for share in range(0, 101, 25)], _LEFT, _RIGHT),
        text("mean share of right pixels in a region", _LEFT, top - 7, "start"),
        *(line(order, run) for order, (_, bins) in orders for run in _runs(bins)),
        *(point(order, name, one) for order, (name, bins) in orders for one in bins),
    ]


def _runs(bins: Sequence[_Bin]) -> list[list[_Bin]]:
    """Neighbouring bins: a line across an empty bin, or to the endless one, would be made up."""
    runs: list[list[_Bin]] = [[]]
    for one in bins:
        last = runs[-1][-1] if runs[-1] else None
        if last and (one["to_pixels"] is None or one["from_pixels"] != last["to_pixels"]):
            runs.append([])
        runs[-1].append(one)
    return runs


def _differences(curves: Mapping[str, Sequence[_Bin]], top: float) -> list[Html]:
    first, second = curves.values()
    points = [
        a["accuracy_percent"] - b["accuracy_percent"] for a, b in zip(first, second, strict=True)
    ]
    reach = round_up(max(map(abs, [1, *points])))
    up = Scale(-reach, reach, top + _DIFFERENCE, top)
    ticks = [(-reach, f"{-reach:+g}"), (0, "0"), (reach, f"{reach:+g}")]

    def difference(one: _Bin, value: float) -> Html:
        kind = ("first" if value > 0 else "second") + " faint" * (one["regions"] < FEW)
        return _bar(one, (up(0), up(value)), kind, f"{value:+.2f} points, {one['regions']} regions")

    return [
        *y_axis(up, ticks, _LEFT, _RIGHT, zero=0),
        text(f"{' minus '.join(curves)}, points", _LEFT, top - 6, "start"),
        *map(difference, first, points),
    ]


def _counts(bins: Sequence[_Bin], below: float) -> list[Html]:
    """How many regions each bin holds, by powers of ten; a single one is half a power high."""
    most = max((one["regions"] for one in bins), default=1)
    up = Scale(10**-0.5, most, below, below - _COUNTS, logarithmic=True)
    powers = [10**power for power in range(len(str(most)))]

    def count(one: _Bin) -> Html:
        return _bar(one, (below, up(one["regions"])), "third pale", f"{one['regions']} regions")

    return [
        *y_axis(up, [(many, f"{many:,}") for many in powers], _LEFT, _RIGHT),
        text("number of regions", _LEFT, below - _COUNTS - 6, "start"),
        *map(count, bins),
        across(below, _LEFT, _RIGHT, "zero"),
    ]


def _sizes(below: float) -> list[Html]:
    """The axis of sizes, below everything."""
    ticks = [(pixels, f"{pixels:,}") for pixels in range(0, _LIMIT, _LIMIT // 4)]
    return [
        *x_axis(_SIZES, ticks, below, f"pixels of the true region, in bins of {_BIN:,}"),
        text("more", _BEYOND, below + 18, "middle"),
        text(f"{_LIMIT:,}", _SIZES.end, below + 18, "end"),
    ]
