"""What `icnet sensitivity` found, as text, HTML, Markdown and SVG."""

from collections.abc import Mapping, Sequence
from typing import Any

from icnet_deploy.evaluation.score import Protocol
from icnet_deploy.report.html import Html, page, tag
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
    x_axis,
    y_axis,
)
from icnet_deploy.report.tables import Table, facts, number, signed, where
from icnet_deploy.runtime.machine import machine, versions

Result = Mapping[str, Any]

_HEADER = ["block", "convolutions", "mIoU, points", "class that falls most", "labels changed %"]
_TRIED = [
    "in float besides",
    "mIoU, points",
    "class that differs most",
    "labels changed %",
    "ms",
    "to float32",
    "budget",
]
_KEPT = "*"
_KEPT_WORDS = f"{_KEPT} in float unless told otherwise; not in 'all others'"

# In units of a drawing's viewBox.
_NAMES, _PANEL, _GAP, _ROW, _TOP = 150, 250, 70, 22, 44  # of the bars
_LEFT, _RIGHT, _UPPER, _LOWER, _HEIGHT = 70, 720, 40, 330, 380
_SHARES = (-1, -0.5, 0, 0.5, 1)


def sensitivity_text(result: Result) -> str:
    """A result for the terminal."""
    lines = [_summary(result), "", _costs(result).text()]
    search = result["search"]
    if search:
        lines += [
            "",
            f"budget: {_budget(search)}",
            _tried(search).text(),
            _verdict(search),
            f"time: {search['time']}",
        ]
    return "\n".join(lines)


def sensitivity_page(result: Result) -> str:
    """A result as one HTML document."""
    search = result["search"]
    searched = []
    if search:
        searched = [
            tag("h2", "Search"),
            tag("p", f"Budget: {_budget(search)}. {_verdict(search)}"),
            tag("p", f"Time: {search['time']}", class_="quiet"),
            tag("figure", trade_off_plot(search)),
            _tried(search).html(),
        ]
    return page(
        "What quantizing each block costs",
        tag("p", _summary(result)),
        tag("figure", cost_plot(result)),
        _costs(result).html(),
        tag("p", _KEPT_WORDS, class_="quiet"),
        *searched,
        tag("h2", "Protocol"),
        facts(Protocol.from_dict(result["protocol"]).to_words()),
        *where(machine() | versions()),
    )


def markdown(results: Sequence[Result]) -> str:
    """The table of recorded results: a row for each block, and columns for each result."""
    chosen = [result for result in results if result["kind"] == "sensitivity"]
    columns: list[dict[str, Sequence[str]]] = []
    names: dict[str, str] = {}  # of a block -> with its mark, if it has one in any result
    for result in chosen:
        columns.append({})
        for name, _, *cells in _costs(result).rows:
            bare = name.removesuffix(f" {_KEPT}")
            columns[-1][bare] = cells
            names[bare] = max(name, names.get(bare, ""))
    header = [f"{result['placement']}: {name}" for result in chosen for name in _HEADER[2:]]
    empty = [""] * len(_HEADER[2:])
    rows = [
        [name, *(cell for column in columns for cell in column.get(bare, empty))]
        for bare, name in names.items()
    ]
    return Table(["in 8 bits", *header], rows).markdown()


def _summary(result: Result) -> str:
    protocol = result["protocol"]
    return (
        f"{result['placement']} on {result['runtime']}: each block alone in 8 bits, against "
        f"float32 ({number(result['float32']['miou_percent'])} % mIoU) on {protocol['images']} "
        f"images of {protocol['dataset']} {protocol['split']}"
    )


def _costs(result: Result) -> Table:
    rows = [
        [
            f"{block['name']} {_KEPT}" if block["kept"] else block["name"],
            str(block["convolutions"]),
            *_cells(block),
        ]
        for block in result["blocks"]
    ]
    together = result["together"]
    rows.append(["all others", str(together["convolutions"]), *_cells(together)])
    return Table(_HEADER, rows, notes=["", _KEPT_WORDS])


def _cells(cost: Mapping[str, Any]) -> list[str]:
    worst = signed(cost["worst_class_difference_points"], 2)
    return [
        signed(cost["miou_difference_points"], 2),
        f"{worst} {cost['worst_class']}",
        number(cost["labels_changed_percent"]),
    ]


def _tried(search: Mapping[str, Any]) -> Table:
    reference = search["float32"]["median_ms"]
    rows = [
        [
            " + ".join(a["in_float"]) or "none",
            signed(a["miou_difference_points"], 2),
            _most(a["class_difference_points"]),
            number(a["labels_changed_percent"]),
            number(a["inference"]["median_ms"], 1),
            number(a["inference"]["median_ms"] / reference),
            "met" if a["met"] else "not met",
        ]
        for a in search["attempts"]
    ]
    return Table(_TRIED, rows)


def _most(points: Mapping[str, float]) -> str:
    """Up or down: a budget binds both."""
    name = max(points, key=lambda name: abs(points[name]))
    return f"{signed(points[name], 2)} {name}"


def _budget(search: Mapping[str, Any]) -> str:
    budget = search["budget"]
    return (
        f"mIoU within {budget['miou_points']:g} points, every class within "
        f"{budget['class_points']:g}"
    )


def _verdict(search: Mapping[str, Any]) -> str:
    best = search["attempts"][search["best"]]
    kept = " + ".join(best["in_float"]) or "no further block"
    if best["met"]:
        return f"met with {kept} in float, on these images: icnet verify on others is the proof"
    return f"met by none; nearest with {kept} in float"


def cost_plot(result: Result) -> Html:
    """Bars of what each block costs: the labels that change, and mIoU and the worst class.

    Args:
        result: of the kind `sensitivity`.
    """
    rows = [*result["blocks"], {"name": "all others", **result["together"]}]
    middles = [_TOP + _ROW * (index + 0.5) for index in range(len(rows))]
    bottom = _TOP + _ROW * len(rows)
    changed = [row["labels_changed_percent"] for row in rows]
    kinds = {"miou_difference_points": "first", "worst_class_difference_points": "second"}
    most = round_up(max(changed))
    reach = round_up(max(abs(row[name]) for row in rows for name in kinds))
    x = Scale(0, most, _NAMES, _NAMES + _PANEL)
    points = Scale(-reach, reach, x.end + _GAP, x.end + _GAP + _PANEL)
    parts = [
        text(f"labels that change, 0 to {most:g} %", x.start, _TOP - 14, "start"),
        text(f"-{reach:g}", points.start, _TOP - 14, "start"),
        text("mIoU (above), worst class, points", points(0), _TOP - 14, "middle"),
        text(f"+{reach:g}", points.end, _TOP - 14, "end"),
        upright(points(0), _TOP - 6, bottom, "zero"),
    ]
    for row, share, middle in zip(rows, changed, middles, strict=True):
        parts += [
            text(row["name"], _NAMES - 8, middle + 4, "end", "name"),
            bar((x.start, x(share)), (middle - 6, middle + 6), "first"),
            text(f"{share:.2f}", x(share) + 4, middle + 4, "start"),
        ]
        for place, (name, kind) in zip((middle - 4, middle + 4), kinds.items(), strict=True):
            words = f"{row['name']}: {row[name]:+.3f} points"
            if kind == "second":
                words += f", {row['worst_class']}"
            drawn = bar((points(0), points(row[name])), (place - 3, place + 3), kind)
            parts.append(hover(words, drawn))
    return drawing("what quantizing each block alone costs", (WIDTH, bottom + 12), parts)


def trade_off_plot(search: Mapping[str, Any]) -> Html:
    """Time against mIoU: float32, and every graph that the search tried.

    Args:
        search: the `search` of a result of the kind `sensitivity`.
    """
    attempts, budget = search["attempts"], search["budget"]["miou_points"]
    best = attempts[search["best"]]
    times = [search["float32"]["median_ms"], *(a["inference"]["median_ms"] for a in attempts)]
    slowest = round_up(max(times))
    reach = round_up(max(budget, *(abs(a["miou_difference_points"]) for a in attempts)))
    x = Scale(0, slowest, _LEFT, _RIGHT)
    y = Scale(-reach, reach, _LOWER, _UPPER)
    levels = [(share * reach, f"{share * reach:+g}" if share else "0") for share in _SHARES]
    steps = [(share * slowest, f"{share * slowest:g}") for share in (0, 0.25, 0.5, 0.75, 1)]
    words = "inference of one image, median, ms; the number is how many blocks are in float"
    parts = [
        text("mIoU minus float32's, points", _LEFT, _UPPER - 14, "start"),
        *y_axis(y, levels, _LEFT, _RIGHT, zero=0),
        *x_axis(x, steps, _LOWER, words),
        *(across(y(end), _LEFT, _RIGHT, "limit") for end in (-budget, budget)),
        *_dot("float32", x(times[0]), y(0), "third", "float32"),
    ]
    for attempt, time in zip(attempts, times[1:], strict=True):
        points, names = attempt["miou_difference_points"], attempt["in_float"]
        words = f"{' + '.join(names) or 'none'} in float: {points:+.3f} points, {time:.1f} ms"
        kind = "first" if attempt is best and attempt["met"] else "second"
        parts += _dot(words, x(time), y(points), kind, str(len(names)))
    return drawing("time against mIoU of every graph that was tried", (WIDTH, _HEIGHT), parts)


def _dot(words: str, x: float, y: float, kind: str, label: str) -> list[Html]:
    drawn = tag("circle", cx=x, cy=y, r=4.5, class_=kind)
    return [hover(words, drawn), text(label, x, y - 8, "middle")]
