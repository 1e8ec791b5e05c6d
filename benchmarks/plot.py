"""The ICNet paper's figure 7 as SVG: accuracy by the size of the true region."""

from __future__ import annotations

from icnet_deploy.benchmarks.templates import Html, tag
from icnet_deploy.data import RegionAccuracy

__all__ = ["region_plot"]

_LEFT, _TOP, _WIDTH, _HEIGHT = 52, 16, 640, 240  # the area of the points, in units of the viewBox


def region_plot(regions: RegionAccuracy) -> Html:
    """A point for each bin that holds regions; it says its numbers when pointed at."""
    step = _WIDTH / len(regions.regions)
    points = [
        (round(_LEFT + (i + 0.5) * step, 1), _up(float(share)), i, float(share))
        for i, share in enumerate(regions.accuracy())
        if regions.regions[i]
    ]
    line = tag("polyline", points=" ".join(f"{x},{y}" for x, y, _, _ in points))
    dots = [
        tag(
            "g",
            tag(
                "title", f"{_bin(regions, i)}: {100 * share:.1f} % of {regions.regions[i]} regions"
            ),
            tag("circle", cx=x, cy=y, r=3.5),
        )
        for x, y, i, share in points
    ]
    label = "mean share of right pixels by the size of the true region"
    drawn = [*_across(regions, step), *_upwards(), line, *dots]
    plot = tag("svg", drawn, viewBox="0 0 712 306", role="img", aria_label=label)
    return tag("div", plot, class_="scroll")


def _up(share: float) -> float:
    return round(_TOP + _HEIGHT * (1 - share), 1)


def _text(text: str, x: float, y: float, anchor: str) -> Html:
    return tag("text", text, x=round(x, 1), y=y, text_anchor=anchor)


def _upwards() -> list[Html]:
    """The axis of accuracy, with lines across."""
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _up(share)
        parts.append(tag("line", x1=_LEFT, x2=_LEFT + _WIDTH, y1=y, y2=y))
        parts.append(_text(f"{100 * share:.0f} %", _LEFT - 8, y + 4, "end"))
    return parts


def _across(regions: RegionAccuracy, step: float) -> list[Html]:
    """The axis of sizes; everything from the limit on shares the last bin."""
    y = _TOP + _HEIGHT + 20
    ticks = range(0, regions.limit, regions.limit // 4)
    return [
        *(_text(f"{t:,}", _LEFT + t / regions.bin_pixels * step, y, "middle") for t in ticks),
        _text(f"{regions.limit:,} and more", _LEFT + _WIDTH, y, "end"),
        _text("pixels of the true region", _LEFT + _WIDTH / 2, y + 22, "middle"),
    ]


def _bin(regions: RegionAccuracy, index: int) -> str:
    start = index * regions.bin_pixels
    if start >= regions.limit:
        return f"{start:,} pixels and more"
    return f"{start:,} to {start + regions.bin_pixels - 1:,} pixels"
