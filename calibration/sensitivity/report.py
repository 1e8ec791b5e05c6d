"""What `icnet sensitivity` found, as text, HTML and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from icnet_deploy.calibration.sensitivity.plot import cost_plot, trade_off_plot
from icnet_deploy.evaluation.score import Protocol
from icnet_deploy.report.html import page, tag
from icnet_deploy.report.parts import facts, table, where
from icnet_deploy.report.tables import number, signed, text_table
from icnet_deploy.runtime.machine import machine, versions

Result = Mapping[str, Any]

_HEADER = ["block", "convolutions", "mIoU, points", "class that falls most", "labels changed %"]
_TRIED = ["in float besides", "mIoU, points", "class that differs most", "labels changed %"]
_TRIED += ["ms", "to float32", "budget"]
KEPT = "*"
_KEPT_WORDS = f"{KEPT} in float unless told otherwise; not in 'all others'"


def sensitivity_text(result: Result) -> str:
    """A result for the terminal."""
    lines = [_summary(result), "", text_table(_HEADER, _rows(result)), f"\n{_KEPT_WORDS}"]
    found = result["search"]
    if found:
        lines += [
            "",
            f"budget: {_budget(found)}",
            text_table(_TRIED, _tried(found)),
            _verdict(found),
        ]
        lines += [f"time: {found['time']}"]
    return "\n".join(lines)


def sensitivity_page(result: Result) -> str:
    """A result as one HTML document."""
    found = result["search"]
    searched = []
    if found:
        searched = [
            tag("h2", "Search"),
            tag("p", f"Budget: {_budget(found)}. {_verdict(found)}"),
            tag("p", f"Time: {found['time']}", class_="quiet"),
            tag("figure", trade_off_plot(found)),
            table(_TRIED, _tried(found)),
        ]
    return page(
        "What quantizing each block costs",
        tag("p", _summary(result)),
        tag("figure", cost_plot(result)),
        table(_HEADER, _rows(result)),
        tag("p", _KEPT_WORDS, class_="quiet"),
        *searched,
        tag("h2", "Protocol"),
        facts(Protocol.from_dict(result["protocol"]).to_words()),
        *where(machine() | versions()),
    )


def markdown(results: Sequence[Result]) -> str:
    """The table of recorded results: a row for each block, and columns for each result."""
    chosen = [result for result in results if result["kind"] == "sensitivity"]
    header = ["in 8 bits"]
    rows: dict[str, list[str]] = {}
    marks: dict[str, str] = {}
    for index, result in enumerate(chosen):
        header += [f"{result['placement']}: {name}" for name in _HEADER[2:]]
        for name, _, *measured in _rows(result):
            bare, kept, _ = name.partition(f" {KEPT}")
            marks[bare] = marks.get(bare) or kept
            cells = rows.setdefault(bare, [])
            cells += [""] * (3 * index - len(cells)) + measured
    width = 3 * len(chosen)
    lines = [header, ["---"] * len(header)]
    lines += [[n + marks[n], *cells, *[""] * (width - len(cells))] for n, cells in rows.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _summary(result: Result) -> str:
    protocol = result["protocol"]
    return (
        f"{result['placement']} on {result['runtime']}: each block alone in 8 bits, against "
        f"float32 ({number(result['float32']['miou_percent'])} % mIoU) on {protocol['images']} "
        f"images of {protocol['dataset']} {protocol['split']}"
    )


def _rows(result: Result) -> list[list[str]]:
    rows = [
        [
            f"{block['name']} {KEPT}" if block["kept"] else block["name"],
            str(block["convolutions"]),
            *_cells(block),
        ]
        for block in result["blocks"]
    ]
    together = result["together"]
    return [*rows, ["all others", str(together["convolutions"]), *_cells(together)]]


def _cells(cost: Mapping[str, Any]) -> list[str]:
    worst = signed(cost["worst_class_difference_points"], 2)
    return [
        signed(cost["miou_difference_points"], 2),
        f"{worst} {cost['worst_class']}",
        number(cost["labels_changed_percent"]),
    ]


def _tried(found: Mapping[str, Any]) -> list[list[str]]:
    reference = found["float32"]["median_ms"]
    return [
        [
            " + ".join(a["in_float"]) or "none",
            signed(a["miou_difference_points"], 2),
            _most(a["class_difference_points"]),
            number(a["labels_changed_percent"]),
            number(a["inference"]["median_ms"], 1),
            number(a["inference"]["median_ms"] / reference),
            "met" if a["met"] else "not met",
        ]
        for a in found["attempts"]
    ]


def _most(points: Mapping[str, float]) -> str:
    """Up or down: a budget binds both."""
    name = max(points, key=lambda name: abs(points[name]))
    return f"{signed(points[name], 2)} {name}"


def _budget(found: Mapping[str, Any]) -> str:
    budget = found["budget"]
    return (
        f"mIoU within {budget['miou_points']:g} points, every class within "
        f"{budget['class_points']:g}"
    )


def _verdict(found: Mapping[str, Any]) -> str:
    best = found["attempts"][found["best"]]
    kept = " + ".join(best["in_float"]) or "no further block"
    if best["met"]:
        return f"met with {kept} in float, on these images: icnet verify on others is the proof"
    return f"met by none; nearest with {kept} in float"
