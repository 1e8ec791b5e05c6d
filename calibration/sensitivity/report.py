"""What `icnet sensitivity` found, as text, HTML and Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from icnet_deploy.calibration.sensitivity.plots import cost_plot, trade_off_plot
from icnet_deploy.evaluation.parity.report import rounded_up
from icnet_deploy.evaluation.score import Protocol
from icnet_deploy.evaluation.verdicts import Verdict, error_words, loss
from icnet_deploy.report.html import Html, page, tag
from icnet_deploy.report.tables import Table, bounded, facts, number, signed, where
from icnet_deploy.runtime.machine import machine, versions

Result = Mapping[str, Any]

_HEADER = ["block", "convolutions", "mIoU, points", "class that falls most", "labels changed %"]
_TRIED = [
    "also in float",
    "mIoU, points",
    "class that differs most",
    "labels changed %",
    "ms",
    "to float32",
    "budget",
]
_PROVED = ["also in float", "what", "points", "limit", "verdict"]
_LEAST = -100  # points: an interval that ends there has no lower end
_KEPT = "*"
_KEPT_WORDS = f"{_KEPT} in float by default; not part of 'all others'"


def sensitivity_text(result: Result) -> str:
    """A result for the terminal; the first line says what it rests on, and what is undecided."""
    lines = [_first_line(result), _summary(result), "", _costs(result).text()]
    search = result["search"]
    if search:
        lines += ["", f"budget: {search['limits']}", _tried(search).text()]
        if search["proof"]:
            lines += ["", _proved(search["proof"]).text(), f"errors: {_error(search)}"]
        lines += [_verdict(search), f"time: {search['time']}"]
    return "\n".join(lines)


def sensitivity_page(result: Result, together: Html, proof: Html | None) -> str:
    """A result as one HTML document.

    Args:
        result: of the kind `sensitivity`.
        together: a drawing of what every class loses where all others are in 8 bits.
        proof: a drawing of what was proved; None where nothing was.
    """
    search = result["search"]
    protocol = Protocol.from_dict(result["protocol"])
    return page(
        "What each block costs in 8 bits",
        tag("p", _first_line(result)),
        tag("p", _summary(result)),
        tag("figure", cost_plot(result)),
        _costs(result).html(),
        tag("p", _KEPT_WORDS, class_="quiet"),
        tag("figure", together),
        _search_section(search, proof) if search else [],
        tag("h2", "Protocol"),
        facts(protocol.to_words()),
        *where(machine() | versions()),
    )


def _search_section(search: Mapping[str, Any], drawn: Html | None) -> list[Html]:
    parts = [
        tag("h2", "Search"),
        tag("p", f"Budget: {search['limits']}."),
        tag("p", f"Time: {search['time']}", class_="quiet"),
        tag("figure", trade_off_plot(search)),
        _tried(search).html(),
        tag("h2", "Proof"),
        tag("p", _verdict(search)),
    ]
    proof = search["proof"]
    if proof:
        words = Protocol.from_dict(proof["protocol"]).to_words()
        parts += [tag("figure", drawn)] if drawn else []
        parts += [_proved(proof).html(), tag("p", f"How sure that is: {_error(search)}.")]
        parts += [tag("h3", "Protocol of the proof"), facts(words)]
    return parts


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


def _first_line(result: Result) -> str:
    """What the intervals rest on, those of the proof where there is one, and what is undecided."""
    proof = result["search"] and result["search"]["proof"]
    if not proof:
        return f"{result['basis']}."
    line = f"The proof: {proof['basis']}."
    if proof["verdict"] != Verdict.UNDECIDED:
        return line
    return f"{line} Undecided: {_remedies(proof['trials'][-1]['findings'])}."


def _error(search: Mapping[str, Any]) -> str:
    """How often the verdict of the proof is wrong, in a sentence."""
    both_ways = search["budget"]["miou_rises"] or search["budget"]["class_rises"]
    return error_words(search["proof"]["level"], both_ways)


def _remedies(findings: Sequence[Mapping[str, Any]]) -> str:
    """What is undecided, and what would decide it."""
    undecided = [one for one in findings if one["verdict"] == Verdict.UNDECIDED]
    crossed = [one for one in undecided if one["more_images"] is not None]
    others = [one for one in undecided if one["more_images"] is None]
    endless = [one["what"] for one in others if not one["difference"]["low"] > _LEAST]
    at_limit = [one["what"] for one in others if one["difference"]["low"] > _LEAST]
    parts = []
    if crossed:
        more = rounded_up(max(one["more_images"] for one in crossed))
        names = ", ".join(one["what"] for one in crossed)
        parts.append(f"{names}, which about {more:,} more images would decide")
    if endless:
        parts.append(f"{', '.join(endless)}, for which there are too few images")
    if at_limit:
        lies = "lies" if len(at_limit) == 1 else "lie"
        parts.append(
            f"{', '.join(at_limit)}, which {lies} at the limit, so no number of images decides"
        )
    return "; ".join(parts)


def _summary(result: Result) -> str:
    protocol, search = result["protocol"], result["search"]
    words = (
        f"{result['placement']} on {result['runtime']}: each block alone in 8 bits, against "
        f"float32 ({number(result['float32']['miou_percent'])} % mIoU) on {protocol['images']} "
        f"images of {protocol['dataset']} {protocol['split']}"
    )
    if search and search["proof"]:
        other = search["proof"]["protocol"]
        words += f"; the search sees these images, and the proof {other['images']} others"
    return words


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
    return [
        points_text(cost["miou_difference_points"]),
        f"{points_text(cost['worst_class_difference_points'])} {cost['worst_class']}",
        number(_value(cost["labels_changed_percent"])),
    ]


def points_text(difference: Mapping[str, float] | float) -> str:
    """A recorded difference, in points, with its interval, which results of schema 1 lack."""
    if not isinstance(difference, Mapping):
        return signed(difference, 2)
    return bounded(difference["value"], difference["low"], difference["high"], 2)


def _value(number: Mapping[str, float] | float) -> float:
    """The number itself, with an interval or, as in schema 1, without one."""
    return number["value"] if isinstance(number, Mapping) else number


def _tried(search: Mapping[str, Any]) -> Table:
    reference = search["float32"]["median_ms"]
    rises = search["budget"]["class_rises"]
    rows = [
        [
            _names(a),
            points_text(a["miou_difference_points"]),
            _most(a["class_difference_points"], rises),
            number(a["labels_changed_percent"]["value"]),
            number(a["inference"]["median_ms"], 1),
            number(a["inference"]["median_ms"] / reference),
            "met" if a["met"] else "not met",
        ]
        for a in search["attempts"]
    ]
    return Table(_TRIED, rows)


def _proved(proof: Mapping[str, Any]) -> Table:
    """What was past of each graph but the last, and all of the last."""
    *before, last = proof["trials"]
    found = [(trial, one) for trial in before for one in trial["findings"]]
    shown = [(trial, one) for trial, one in found if one["verdict"] == Verdict.PAST]
    shown += [(last, one) for one in last["findings"]]
    rows = [
        [_names(trial), one["what"], points_text(one["difference"]), one["limit"], one["verdict"]]
        for trial, one in shown
    ]
    return Table(_PROVED, rows, left=2)


def _names(graph: Mapping[str, Any]) -> str:
    return " + ".join(graph["in_float"]) or "none"


def _most(classes: Mapping[str, Mapping[str, float]], rises: bool) -> str:
    """The class that is nearest to its limit, or furthest beyond."""
    name = max(classes, key=lambda name: loss(classes[name]["value"], rises))
    return f"{points_text(classes[name])} {name}"


def _verdict(search: Mapping[str, Any]) -> str:
    proof = search["proof"]
    if not proof:
        nearest = _names(search["attempts"][search["best"]])
        return (
            f"search: no graph meets the budget; the nearest has {nearest} in float; nothing is "
            "proved"
        )
    last = proof["trials"][-1]
    met = _names(search["attempts"][search["best"]])
    words = f"search: the budget is met with {met} in float; proof: "
    images = f"{proof['protocol']['images']} other images ({proof['rule']})"
    words += f"{proof['verdict']} with {_names(last)} in float, on {images}"
    looks = proof["candidates"]
    if looks > 1:
        words += (
            f"; {len(proof['trials'])} of {looks} candidates were proved, with intervals of "
            f"{100 * proof['level']:.4g} %, so that {looks} looks are wrong no more often than one"
        )
    return words
