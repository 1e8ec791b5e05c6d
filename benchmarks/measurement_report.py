"""The HTML report of benchmarks: what was measured, as one document that fetches nothing.

`icnet benchmark report` makes it of recorded measurements.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from icnet_deploy.benchmarks.measurement import SCOPES, Measurement, read_measurements
from icnet_deploy.benchmarks.measurement_tables import (
    BenchTable,
    across_scopes,
    device_words,
    is_summary,
    machine_words,
    plain_words,
    tables,
    unit_of,
)
from icnet_deploy.benchmarks.plots.known_scores import KnownScore, protocol_line, read_scores
from icnet_deploy.benchmarks.plots.samples import sample_plot
from icnet_deploy.benchmarks.plots.speed import points, speed_plot
from icnet_deploy.command import command
from icnet_deploy.command import parser as make_parser
from icnet_deploy.files import write_text
from icnet_deploy.report.html import Html, page, tag
from icnet_deploy.report.parts import facts, figures, table

_TITLES: Mapping[str, str] = {
    "latency": "Latency",
    "throughput": "Throughput",
    "stages": "Where the time of an image goes",
    "start": "From a process's start to its first label map",
    "memory": "Memory and size",
    "paced": "Frames at a fixed rate",
}


def report_page(
    files: Mapping[str, Sequence[Measurement]], scores: Sequence[KnownScore] = ()
) -> str:
    """Measurements as one HTML document.

    Args:
        files: name -> what was measured together; a name may be empty where there is one.
        scores: mIoU of what was timed, for the plot of speed against it.
    """
    everything = [each for found in files.values() for each in found]
    names = ", ".join(dict.fromkeys(_TITLES.get(e.kind, e.kind) for e in everything))
    where = "; ".join(dict.fromkeys(machine_words(each) for each in everything))
    parts: list[Html | list[Html]] = [
        tag("p", f"{names}. {where}.", class_="quiet"),
        _headline(everything, in_turn=len(files) == 1),
        _speed(everything, scores),
    ]
    for name, found in files.items():
        if len(files) > 1:
            parts.append(tag("h2", name))
        parts += [_section(one, "h3" if len(files) > 1 else "h2") for one in tables(found)]
        parts += [tag("p", f"{line[0].upper()}{line[1:]}.") for line in across_scopes(found)]
    return page("icnet benchmark", *parts, _places(everything))


_FIGURES: Mapping[str, tuple[str, Callable[..., Measurement], str]] = {
    "throughput": ("images_per_s", max, "images a second"),
    "start": ("total", min, "to the first label map"),
    "memory": ("peak_bytes", min, "peak memory"),
}
"""Kind -> the value that its reader came for, which one is best, and what it is."""


def _headline(found: Sequence[Measurement], in_turn: bool) -> Html:
    """The best of each kind; of latencies taken in turn also how it compares with the first."""
    values: dict[str, str] = {}
    whole = [e for e in found if e.kind == "latency" and e.scope == "image-to-labels"]
    if whole:
        best = min(whole, key=lambda each: _size_of(each, "total"))
        size = "x".join(map(str, best.setting["size"]))
        values[f"an image of {size}, {_who(best)}"] = f"{_size_of(best, 'total'):.1f} ms"
        values["frames a second, of the same"] = f"{1e3 / _size_of(best, 'total'):.1f}"
        if best is not whole[0] and in_turn and len(tables(whole)) == 1:
            ratio = _size_of(best, "total") / _size_of(whole[0], "total")
            values[f"of the time of {_who(whole[0])}"] = f"{ratio:.2f}"
    for kind, (name, choose, words) in _FIGURES.items():
        rows = [each for each in found if each.kind == kind and name in each.values]
        if rows:
            best = choose(rows, key=lambda each: _size_of(each, name))
            unit, divisor, digits = ("ms", 1, 0) if name == "total" else unit_of(name)
            shown = f"{_size_of(best, name) / divisor:.{digits}f}"
            values[f"{words}, {_who(best)}"] = shown if unit == "a second" else f"{shown} {unit}"
    return figures(values)


def _size_of(each: Measurement, name: str) -> float:
    value = each.values[name]
    return float(value["median_ms"] if is_summary(value) else value)


def _who(each: Measurement) -> str:
    return f"{each.name} on {device_words(each)}"


def _speed(found: Sequence[Measurement], scores: Sequence[KnownScore]) -> list[Html]:
    if not scores:
        return []
    drawn, notes = points(found, scores)
    said = [tag("p", note, class_="quiet") for note in notes]
    if not drawn:
        return said
    return [
        tag("h2", "Frames a second against mIoU"),
        tag("div", speed_plot(drawn, protocol_line(scores[0])), class_="scroll"),
        tag(
            "p",
            "In the manner of the ICNet paper's figure 1; mIoU as icnet evaluate counts it.",
            class_="quiet",
        ),
        *said,
    ]


def _section(one: BenchTable, heading: str) -> list[Html]:
    parts = [
        tag(heading, _TITLES.get(one.kind, one.kind)),
        tag("p", f"Covers ({one.scope}): {SCOPES[one.scope]}."),
        table(one.header, one.rows, one.left),
        *(tag("p", f"{note[0].upper()}{note[1:]}.", class_="quiet") for note in one.notes),
    ]
    sampled = [each for each in one.measured if is_summary(each.values.get("total"))]
    if one.kind == "latency" and sampled:
        parts.append(tag("div", sample_plot(sampled), class_="scroll"))
    for each in one.measured:
        parts += _lists(each)
    return parts


def _lists(each: Measurement) -> Iterator[Html]:
    """Values that are lists of things, such as a network's operators, as tables of their own."""
    for name, value in each.values.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            yield tag("h3", f"{plain_words(name)}: {_who(each)}")
            header = [plain_words(column, True) for column in value[0]]
            rows = [["-" if cell is None else str(cell) for cell in row.values()] for row in value]
            yield table(header, rows, left=3)


def _places(found: Sequence[Measurement]) -> list[Html]:
    """Each machine, with its versions, that something was measured on."""
    places: dict[str, dict[str, object]] = {}
    for each in found:
        told = {**each.machine, **each.versions}
        words = {k: " ".join(map(str, v)) if isinstance(v, list) else v for k, v in told.items()}
        places.setdefault(repr(words), {k.replace("_", " "): v for k, v in words.items() if v})
    return [tag("h2", "Machine and versions"), *(facts(told) for told in places.values())]


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "icnet benchmark report",
        "Makes one self-contained HTML page of recorded measurements.",
        "icnet benchmark report latency.jsonl start.jsonl --miou parity.json -o report.html",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.jsonl")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.html")
    parser.add_argument(
        "--miou",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.json",
        help="a result of icnet evaluate, parity or verify; may be repeated",
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet benchmark report`; returns its exit code."""
    arguments = _parser().parse_args(argv)
    files = {path.name: read_measurements(path) for path in arguments.files}
    write_text(arguments.output, report_page(files, read_scores(arguments.miou)))
    return 0
