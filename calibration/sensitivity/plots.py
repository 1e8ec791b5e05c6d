"""Drawings of what `icnet sensitivity` found: what blocks cost, and time against mIoU."""

from collections.abc import Iterable, Mapping
from typing import Any

from icnet_deploy.report.html import Html, tag
from icnet_deploy.report.svg import (
    WIDTH,
    Scale,
    across,
    bar,
    drawing,
    hover,
    round_up,
    text,
    upright,
    whisker,
    x_axis,
    y_axis,
)

Result = Mapping[str, Any]

# In units of a drawing's viewBox.
_NAMES, _PANEL, _GAP, _ROW, _TOP = 150, 250, 70, 26, 44  # of the bars
_LEFT, _RIGHT, _UPPER, _LOWER, _HEIGHT = 70, 720, 40, 330, 380
_SHARES = (-1, -0.5, 0, 0.5, 1)

_KINDS = {"miou_difference_points": "first", "worst_class_difference_points": "second"}
_CUT = 4  # times the largest value: an interval that is wider is cut off


def cost_plot(result: Result) -> Html:
    """Bars of what each block costs: the labels that change, and mIoU and the worst class.

    Over each bar lies its interval; the end of one that leaves the drawing is an arrow.

    Args:
        result: of the kind `sensitivity`, of schema 2 on.
    """
    rows = [*result["blocks"], {"name": "all others", **result["together"]}]
    bottom = _TOP + _ROW * len(rows)
    most = _reach(row["labels_changed_percent"] for row in rows)
    reach = _reach(row[name] for row in rows for name in _KINDS)
    x = Scale(0, most, _NAMES, _NAMES + _PANEL)
    points = Scale(-reach, reach, x.end + _GAP, x.end + _GAP + _PANEL)
    parts = [
        text(f"labels that change, 0 to {most:g} %", x.start, _TOP - 14, "start"),
        text(f"-{reach:g}", points.start, _TOP - 14, "start"),
        text("mIoU (above), worst class, points", points(0), _TOP - 14, "middle"),
        text(f"+{reach:g}", points.end, _TOP - 14, "end"),
        upright(points(0), _TOP - 6, bottom, "zero"),
    ]
    for index, row in enumerate(rows):
        middle = _TOP + _ROW * (index + 0.5)
        changed = row["labels_changed_percent"]
        share, ends = changed["value"], (changed["low"], changed["high"])
        drawn = bar((x.start, x(share)), (middle - 6, middle + 6), "first pale")
        words = f"{row['name']}: {_words(changed, '%')}"
        parts += [
            text(row["name"], _NAMES - 8, middle + 4, "end", "name"),
            hover(words, drawn, whisker(x, ends, middle, "first")),
            text(f"{share:.2f}", x(min(max(ends), most)) + 6, middle + 4, "start"),
        ]
        for place, (name, kind) in zip((middle - 5, middle + 5), _KINDS.items(), strict=True):
            words = f"{row['name']}: {_words(row[name], 'points')}"
            if kind == "second":
                words += f", {row['worst_class']}"
            value, ends = row[name]["value"], (row[name]["low"], row[name]["high"])
            drawn = bar((points(0), points(value)), (place - 3, place + 3), f"{kind} pale")
            parts.append(hover(words, drawn, whisker(points, ends, place, kind)))
    return drawing("what each block alone in 8 bits costs", (WIDTH, bottom + 12), parts)


def _reach(intervals: Iterable[Mapping[str, float]]) -> float:
    """Of an axis: all values fit, and so do intervals unless they dwarf the values."""
    rows = list(intervals)
    values = max(abs(row["value"]) for row in rows)
    ends = max(max(abs(row["low"]), abs(row["high"])) for row in rows)
    return round_up(max(values, min(ends, _CUT * values)))


def _words(interval: Mapping[str, float], unit: str) -> str:
    return f"{interval['value']:+.3f} {unit} [{interval['low']:+.3f}, {interval['high']:+.3f}]"


def trade_off_plot(search: Mapping[str, Any]) -> Html:
    """Time against mIoU: float32, and every graph that the search tried.

    Args:
        search: the `search` of a result of the kind `sensitivity`.
    """
    attempts, budget = search["attempts"], search["budget"]
    limit = budget["miou_points"]
    limits = (-limit, limit) if budget["miou_rises"] else (-limit,)
    proof = search["proof"]
    proved = proof["trials"][-1] if proof else None
    times = [search["float32"]["median_ms"], *(a["inference"]["median_ms"] for a in attempts)]
    slowest = round_up(max(times))
    reach = round_up(max(limit, *(abs(a["miou_difference_points"]["value"]) for a in attempts)))
    x = Scale(0, slowest, _LEFT, _RIGHT)
    y = Scale(-reach, reach, _LOWER, _UPPER)
    levels = [(share * reach, f"{share * reach:+g}" if share else "0") for share in _SHARES]
    steps = [(share * slowest, f"{share * slowest:g}") for share in (0, 0.25, 0.5, 0.75, 1)]
    words = "inference of one image, median, ms; each number counts the blocks in float"
    parts = [
        text("mIoU minus float32's, points", _LEFT, _UPPER - 14, "start"),
        *y_axis(y, levels, _LEFT, _RIGHT, zero=0),
        *x_axis(x, steps, _LOWER, words),
        *(across(y(end), _LEFT, _RIGHT, "limit") for end in limits),
        *_dot("float32", x(times[0]), y(0), "third", "float32"),
    ]
    for index, (attempt, time) in enumerate(zip(attempts, times[1:], strict=True)):
        difference, names = attempt["miou_difference_points"], attempt["in_float"]
        words = f"{' + '.join(names) or 'none'} in float: {_words(difference, 'points')}"
        chosen = proved is not None and proved["attempt"] == index and proved["verdict"] != "past"
        place, kind = y(difference["value"]), "first" if chosen else "second"
        parts += _dot(f"{words}, {time:.1f} ms", x(time), place, kind, str(len(names)))
    return drawing("time against mIoU of every graph that was tried", (WIDTH, _HEIGHT), parts)


def _dot(words: str, x: float, y: float, kind: str, label: str) -> list[Html]:
    drawn = tag("circle", cx=x, cy=y, r=4.5, class_=kind)
    return [hover(words, drawn), text(label, x, y - 8, "middle")]
