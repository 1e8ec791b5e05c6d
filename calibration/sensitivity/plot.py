"""The pictures of `icnet sensitivity`, as SVG that stands alone as a file and in a report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from icnet_deploy.report.html import Html, svg, svg_text, tag

_STYLE = """
svg.costs { display: block; width: 760px; min-width: 30rem; max-width: 100%; height: auto;
  font-family: system-ui, "Segoe UI", Roboto, sans-serif; }
.costs .ground { fill: var(--card, #ffffff); }
.costs text { fill: var(--quiet, #5d6670); font-size: 12px; }
.costs text.name { fill: var(--ink, #1d2126); }
.costs line { stroke: var(--line, #dde1e5); }
.costs line.zero { stroke: var(--quiet, #5d6670); }
.costs line.budget { stroke: var(--other, #b4501a); stroke-dasharray: 5 3; }
.costs .first { fill: var(--mark, #2457b8); }
.costs .second { fill: var(--other, #b4501a); }
.costs .third { fill: var(--quiet, #5d6670); }
""".replace('"', "'")

_WIDTH = 760  # in units of the viewBox, as all that follow
_NAMES, _PANEL, _GAP, _ROW, _TOP = 150, 250, 70, 22, 44

_LEFT, _RIGHT, _UPPER, _LOWER, _HEIGHT = 70, 720, 40, 330, 380


def cost_plot(result: Mapping[str, Any]) -> Html:
    """Bars of what each block costs: the labels that change, and mIoU and the worst class.

    Args:
        result: of the kind `sensitivity`.
    """
    rows = [*result["blocks"], {"name": "all others", **result["together"]}]
    height = _TOP + _ROW * len(rows) + 12
    parts = [
        *_changed(rows, _NAMES),
        *_points(rows, _NAMES + _PANEL + _GAP),
        *(
            svg_text(row["name"], _NAMES - 8, _middle(index) + 4, "end", "name")
            for index, row in enumerate(rows)
        ),
    ]
    return svg("costs", "what quantizing each block alone costs", (_WIDTH, height), _STYLE, parts)


def trade_off_plot(found: Mapping[str, Any]) -> Html:
    """Time against mIoU: float32, and every graph that the search tried.

    Args:
        found: the `search` of a result of the kind `sensitivity`.
    """
    attempts, budget = found["attempts"], found["budget"]["miou_points"]
    best = attempts[found["best"]]
    times = [found["float32"]["median_ms"], *(a["inference"]["median_ms"] for a in attempts)]
    points = [0.0, budget, -budget, *(a["miou_difference_points"] for a in attempts)]
    slowest = _round_up(max(times))
    reach = _round_up(max(map(abs, points)))

    def x(milliseconds: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * milliseconds / slowest, 1)

    def y(difference: float) -> float:
        middle = (_UPPER + _LOWER) / 2
        return round(middle - difference / reach * (_LOWER - _UPPER) / 2, 1)

    parts = [svg_text("mIoU minus float32's, points", _LEFT, _UPPER - 14, "start")]
    for share in (-1, -0.5, 0, 0.5, 1):
        parts += [
            _across(y(share * reach), "grid" if share else "zero"),
            svg_text(
                f"{share * reach:+g}" if share else "0", _LEFT - 8, y(share * reach) + 4, "end"
            ),
        ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        words = f"{share * slowest:g}"
        parts.append(svg_text(words, x(share * slowest), _LOWER + 18, "middle"))
    words = "inference of one image, median, ms; the number is how many blocks are in float"
    parts.append(svg_text(words, (_LEFT + _RIGHT) / 2, _LOWER + 38, "middle"))
    parts += [_across(y(sign * budget), "budget") for sign in (-1, 1)]
    parts += _dot("float32", x(times[0]), y(0), "third", "float32")
    for attempt in attempts:
        time, points_ = attempt["inference"]["median_ms"], attempt["miou_difference_points"]
        names = " + ".join(attempt["in_float"]) or "none"
        told = f"{names} in float: {points_:+.3f} points, {time:.1f} ms"
        kind = "first" if attempt is best and attempt["met"] else "second"
        parts += _dot(told, x(time), y(points_), kind, str(len(attempt["in_float"])))
    return svg(
        "costs", "time against mIoU of every graph that was tried", (_WIDTH, _HEIGHT), _STYLE, parts
    )


def _changed(rows: Sequence[Mapping[str, Any]], left: float) -> Iterator[Html]:
    reach = _round_up(max(row["labels_changed_percent"] for row in rows))
    yield svg_text(f"labels that change, 0 to {reach:g} %", left, _TOP - 14, "start")
    for index, row in enumerate(rows):
        value = row["labels_changed_percent"]
        yield _bar(left, left + _PANEL * value / reach, _middle(index), 6, "first")
        end = left + _PANEL * value / reach
        yield svg_text(f"{value:.2f}", end + 4, _middle(index) + 4, "start")


def _points(rows: Sequence[Mapping[str, Any]], left: float) -> Iterator[Html]:
    kinds = {"miou_difference_points": "first", "worst_class_difference_points": "second"}
    reach = _round_up(max(abs(row[name]) for row in rows for name in kinds))
    zero = left + _PANEL / 2
    yield svg_text(f"-{reach:g}", left, _TOP - 14, "start")
    yield svg_text("mIoU (above), worst class, points", zero, _TOP - 14, "middle")
    yield svg_text(f"+{reach:g}", left + _PANEL, _TOP - 14, "end")
    bottom = _TOP + _ROW * len(rows)
    yield tag("line", class_="zero", x1=zero, x2=zero, y1=_TOP - 6, y2=bottom)
    for index, row in enumerate(rows):
        for place, (name, kind) in enumerate(kinds.items()):
            end = zero + row[name] / reach * _PANEL / 2
            told = f"{row['name']}: {row[name]:+.3f} points"
            if kind == "second":
                told += f", {row['worst_class']}"
            bar = _bar(zero, end, _middle(index) - 4 + 8 * place, 3, kind)
            yield tag("g", tag("title", told), bar)


def _middle(index: int) -> float:
    return _TOP + _ROW * (index + 0.5)


def _bar(start: float, end: float, middle: float, half: float, kind: str) -> Html:
    return tag(
        "rect",
        x=round(min(start, end), 1),
        y=round(middle - half, 1),
        width=round(max(abs(end - start), 0.5), 1),
        height=2 * half,
        class_=kind,
    )


def _dot(told: str, x: float, y: float, kind: str, label: str) -> list[Html]:
    return [
        tag("g", tag("title", told), tag("circle", cx=x, cy=y, r=4.5, class_=kind)),
        svg_text(label, x, y - 8, "middle"),
    ]


def _across(y: float, kind: str) -> Html:
    return tag("line", x1=_LEFT, x2=_RIGHT, y1=y, y2=y, class_=kind)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(value, 1e-6)))
    return next(nice * power for nice in (1, 2, 5, 10) if value <= nice * power * (1 + 1e-9))
