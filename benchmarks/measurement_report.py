"""The HTML report of benchmarks: what was measured, as one document that fetches nothing.

`icnet benchmark report` makes it of recorded measurements.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from icnet_deploy.benchmarks.measurement import SCOPES, Measurement, read_measurements
from icnet_deploy.benchmarks.measurement_tables import (
    KINDS,
    MeasuredTable,
    across_scopes,
    is_summary,
    kind_row,
    machine_words,
    plain_words,
    tables,
    unit_of,
    who,
)
from icnet_deploy.benchmarks.plots import (
    PLOT,
    KnownScore,
    points,
    protocol_line,
    read_scores,
    sample_plot,
    speed_plot,
)
from icnet_deploy.command import Goal, command, options, parser
from icnet_deploy.files import write_text
from icnet_deploy.report.html import Html, figures, page, tag
from icnet_deploy.report.tables import Table
from icnet_deploy.report.tables import where as where_it_was


def report_page(
    files: Mapping[str, Sequence[Measurement]], scores: Sequence[KnownScore] = ()
) -> str:
    """Measurements as one HTML document.

    Args:
        files: name -> what was measured together; a name may be empty where there is one.
        scores: mIoU of what was timed, for the plot of speed against it.
    """
    everything = [each for measured in files.values() for each in measured]
    names = ", ".join(dict.fromkeys(kind_row(each.kind).title for each in everything))
    where = "; ".join(dict.fromkeys(machine_words(each) for each in everything))
    parts: list[Html | list[Html]] = [
        tag("p", f"{names}. {where}.", class_="quiet"),
        _headline(everything, in_turn=len(files) == 1),
        _speed(everything, scores),
    ]
    for name, measured in files.items():
        if len(files) > 1:
            parts.append(tag("h2", name))
        parts += [_section(one, "h3" if len(files) > 1 else "h2") for one in tables(measured)]
        parts += [tag("p", _sentence(line)) for line in across_scopes(measured)]
    places = {
        repr((e.machine, e.versions)): where_it_was(e.machine | e.versions) for e in everything
    }
    heading = next(iter(places.values()))[0]
    return page("icnet benchmark", *parts, heading, *(facts for _, facts in places.values()))


def _headline(measured: Sequence[Measurement], in_turn: bool) -> Html:
    """The best of each kind; of latencies taken in turn also how it compares with the first."""
    values: dict[str, str] = {}
    latencies = [each for each in measured if each.kind == "latency" and "total" in each.values]
    whole = [each for each in latencies if each.scope == "image-to-labels"]
    if whole:
        best = min(whole, key=lambda each: _size_of(each, "total"))
        height, width = best.setting["size"]
        values[f"an image of {height}x{width}, {who(best)}"] = f"{_size_of(best, 'total'):.1f} ms"
        values[f"frames a second, {who(best)}"] = f"{1e3 / _size_of(best, 'total'):.1f}"
        if best is not whole[0] and in_turn and len(tables(whole)) == 1:
            ratio = _size_of(best, "total") / _size_of(whole[0], "total")
            values[f"ratio to the time of {who(whole[0])}"] = f"{ratio:.2f}"
    bests = {kind: row.best for kind, row in KINDS.items() if row.best}
    for kind, (name, choose, words) in bests.items():
        rows = [each for each in measured if each.kind == kind and name in each.values]
        if rows:
            best = choose(rows, key=lambda each: _size_of(each, name))
            unit, divisor, digits = ("ms", 1, 0) if name == "total" else unit_of(name)
            shown = f"{_size_of(best, name) / divisor:.{digits}f}"
            values[f"{words}, {who(best)}"] = shown if unit == "a second" else f"{shown} {unit}"
    return figures(values)


def _size_of(each: Measurement, name: str) -> float:
    value = each.values[name]
    return float(value["median_ms"] if is_summary(value) else value)


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _speed(measured: Sequence[Measurement], scores: Sequence[KnownScore]) -> list[Html]:
    if not scores:
        return []
    drawn, notes = points(measured, scores)
    said = [tag("p", note, class_="quiet") for note in notes]
    if not drawn:
        return said
    return [
        tag("h2", "Frames a second against mIoU"),
        tag("div", speed_plot(drawn, protocol_line(scores[0])), class_="scroll"),
        tag(
            "p",
            "Drawn like figure 1 of the ICNet paper, with the mIoU of icnet evaluate.",
            class_="quiet",
        ),
        *said,
    ]


def _section(table: MeasuredTable, heading: str) -> list[Html]:
    kind, scope = table.measured[0].kind, table.measured[0].scope
    parts = [
        tag(heading, kind_row(kind).title),
        tag("p", f"Covers ({scope}): {SCOPES[scope]}."),
        table.html(),
        *(tag("p", _sentence(note), class_="quiet") for note in table.notes),
    ]
    sampled = [each for each in table.measured if is_summary(each.values.get("total"))]
    if kind == "latency" and sampled:
        parts.append(tag("div", sample_plot(sampled), class_="scroll"))
    for each in table.measured:
        parts += _lists(each)
    return parts


def _lists(each: Measurement) -> Iterator[Html]:
    """Values that are lists of things, such as a network's operators, as tables of their own."""
    for name, value in each.values.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            yield tag("h3", f"{plain_words(name)}: {who(each)}")
            header = [plain_words(column, True) for column in value[0]]
            rows = [["-" if cell is None else str(cell) for cell in row.values()] for row in value]
            yield Table(header, rows, left=3).html()


def _parser() -> argparse.ArgumentParser:
    report = parser(
        "icnet benchmark report",
        "Writes one HTML page from recorded measurements.",
        "icnet benchmark report latency.jsonl start.jsonl --miou parity.json -o report.html",
    )
    report.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE.jsonl",
        help="measurements that icnet benchmark wrote with --json",
    )
    options(report, Goal.RESULTS).add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE.html", help="the page to write"
    )
    options(report, PLOT).add_argument(
        "--miou",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.json",
        help="a result of icnet evaluate, parity or verify, which holds the mIoU; may be repeated",
    )
    return report


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet benchmark report`; returns its exit code."""
    arguments = _parser().parse_args(argv)
    files = {path.name: read_measurements(path) for path in arguments.files}
    write_text(arguments.output, report_page(files, read_scores(arguments.miou)))
    return 0
