"""Measurements as tables: the same cells for a terminal, for Markdown and for the HTML report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from icnet_deploy.benchmarks.measurement import SCOPES, Measurement
from icnet_deploy.report.tables import number, text_table
from icnet_deploy.timing import Ratio, ratio_of_medians, tellable

_STAGES = ("preprocess", "inference", "label_map")

_UNITS: Mapping[str, tuple[str, float, int]] = {
    "ms": ("ms", 1, 1),
    "bytes": ("MiB", 2**20, 1),
    "percent": ("%", 1, 1),
    "per_s": ("a second", 1, 2),
    "frames": ("frames", 1, 0),
}
"""The end of a value's name -> how it is written, what it is divided by, and its decimals."""

_SAID = ("size", "batch")
"""Settings that `setting_words` says."""


@dataclass(frozen=True)
class BenchTable:
    """Rows that may be compared with one another: one kind, scope, size, batch and machine.

    Attributes:
        kind, scope: see `Measurement`.
        header, rows: the cells.
        left: how many columns, from the first, hold words.
        notes: sentences that belong below it.
        measured: the measurement behind each row.
    """

    kind: str
    scope: str
    header: list[str]
    rows: list[list[str]]
    left: int
    notes: list[str]
    measured: list[Measurement]


def tables(found: Sequence[Measurement]) -> list[BenchTable]:
    """A table for each group of measurements that may be compared, in order of appearance."""
    groups: dict[tuple[str, ...], list[Measurement]] = {}
    for each in found:
        size, batch = (str(each.setting.get(name)) for name in _SAID)
        key = [each.kind, each.scope, size, repr(each.machine), repr(each.versions)]
        if each.kind != "throughput":  # which asks what a batch is worth
            key.append(batch)
        groups.setdefault(tuple(key), []).append(each)
    return [
        latency_table(group) if key[0] == "latency" else _table(group)
        for key, group in groups.items()
    ]


def text(found: Sequence[Measurement]) -> str:
    """For a terminal: every table with its scope, then the ratios across scopes."""
    parts = []
    for table in tables(found):
        parts.append(text_table(table.header, table.rows, table.left))
        parts.append("\n".join([*table.notes, f"scope, {table.scope}: {SCOPES[table.scope]}"]))
    across = across_scopes(found)
    return "\n\n".join([*parts, *(["\n".join(across)] if across else [])])


def latency_table(group: Sequence[Measurement]) -> BenchTable:
    """Milliseconds by stage, percentiles, frames a second, and the ratio to the first row."""
    stages = [name for name in _STAGES if any(name in each.values for each in group)]
    rows = []
    for each in group:
        total, ratio = each.values.get("total"), ratio_to(each, group[0])
        median = median_ms(each)
        rows.append(
            [
                each.name,
                str(each.subject.get("precision") or "-"),
                device_words(each),
                *(_cell(each.values.get(name), "median_ms") for name in stages),
                number(median, 1),
                *(_cell(total, name) for name in ("p10_ms", "p90_ms", "p99_ms")),
                number(1e3 / median if median else None, 1),
                number(ratio.value if ratio else None),
                _interval(ratio) if each is not group[0] else "",
            ]
        )
    header = ["artefact", "precision", "on", *(plain_words(name) for name in stages)]
    header += ["total", "p10", "p90", "p99", "frames/s", "to the first", "95 %"]
    in_turn = [each for each in group if "total" in each.values]
    alone = [each.name for each in group if each not in in_turn]
    runs = " or ".join(map(str, dict.fromkeys(e.values["total"]["runs"] for e in in_turn)))
    warmup = group[0].setting.get("warmup")
    after = f", after {warmup} to warm up" if warmup else ""
    notes = [f"{setting_words(group)}; medians in ms"]
    if in_turn:
        notes[0] += f", {runs} runs each, in turn{after}"
    if alone:
        notes.append(f"not in turn, in a process of its own, by its own clock: {', '.join(alone)}")
    return BenchTable("latency", group[0].scope, header, rows, 3, notes, list(group))


def median_ms(each: Measurement) -> float:
    """The median of a latency in milliseconds; what times itself tells it without samples."""
    total = each.values.get("total")
    return float(total["median_ms"] if total else each.values["median_ms"])


def ratio_to(each: Measurement, first: Measurement) -> Ratio | None:
    """How many times the first's total it takes; they were taken in turn."""
    if "total" not in each.values or "total" not in first.values:
        below = median_ms(first)
        return Ratio(median_ms(each) / below) if below else None
    samples = [one.values["total"]["samples_ms"] for one in (each, first)]
    return ratio_of_medians(samples[0], samples[1], in_turn=True)


def across_scopes(found: Sequence[Measurement]) -> list[str]:
    """Sentences that set latencies of one file and unlike scopes against each other, and say so."""
    latencies = [each for each in found if each.kind == "latency"]
    lines = []
    for each in latencies:
        for other in latencies:
            like = all(each.setting[name] == other.setting[name] for name in ("size", "batch"))
            one_file = each.subject.get("sha256") == other.subject.get("sha256") is not None
            if like and one_file and each.scope == "image-to-labels" and other.scope != each.scope:
                ratio = ratio_to(each, other)
                lines.append(
                    f"across scopes: {each.name} on {device_words(each)} ({each.scope}) takes "
                    f"{number(ratio.value if ratio else None)} times as long as {other.name} "
                    f"({other.scope}, which covers less{_alone(other)})"
                )
    return lines


def _alone(each: Measurement) -> str:
    return "" if "total" in each.values else ", and did not run in turn"


def _table(group: Sequence[Measurement]) -> BenchTable:
    """Any other kind: medians and p90 of what has samples, numbers with their units."""
    told = [name for name in _common(group, "setting") if name != "size"]
    apart = [name for name in told if len({repr(e.setting.get(name)) for e in group}) > 1]
    names = [name for name in _common(group, "values") if _fits(group, name)]
    sampled = [name for name in names if any(is_summary(e.values.get(name)) for e in group)]
    # The p90 of each part would make a wide table wider, and few look for it there.
    with_p90 = sampled if len(sampled) <= 3 else ["total"]
    header = ["artefact", "precision", "on", *(plain_words(name, True) for name in apart)]
    for name in names:
        header.append(f"{plain_words(name)}, ms" if name in sampled else plain_words(name, True))
        header += ["p90"] * (name in with_p90)
    rows = []
    for each in group:
        cells = [each.name, str(each.subject.get("precision") or "-"), device_words(each)]
        cells += [_value(name, each.setting.get(name)) for name in apart]
        for name in names:
            value = each.values.get(name)
            cells.append(_cell(value, "median_ms") if name in sampled else _value(name, value))
            if name in with_p90:
                cells.append(_cell(value, "p90_ms"))
        rows.append(cells)
    alike = [
        f"{plain_words(name, True)}: {_value(name, group[0].setting[name])}"
        for name in told
        if name not in (*apart, "batch")
    ]
    notes = ["; ".join([setting_words(group), *alike])]
    return BenchTable(group[0].kind, group[0].scope, header, rows, 3, notes, list(group))


def device_words(each: Measurement) -> str:
    """What it ran on: runtime, device, and threads and streams where they were chosen."""
    told = each.subject
    words = [str(told[name]) for name in ("runtime", "device") if told.get(name)]
    for name, default in (("threads", None), ("streams", 1)):
        value = told.get(name)
        if value not in (None, default):
            words.append(f"{value} {name if value != 1 else name[:-1]}")
    return ", ".join(words) or "-"


def setting_words(group: Sequence[Measurement]) -> str:
    """The size, batch and machine of a group, in words."""
    first = group[0]
    size = first.setting.get("size")
    words = ["x".join(map(str, size))] if size else []
    if len({repr(each.setting.get("batch")) for each in group}) == 1 and first.setting.get("batch"):
        words.append(f"batch {first.setting['batch']}")
    return ", ".join([*words, machine_words(first)])


def machine_words(each: Measurement) -> str:
    """The processor and its cores."""
    return f"{each.machine.get('cpu')}, {each.machine.get('cores')} cores"


def unit_of(name: str) -> tuple[str, float, int]:
    """How a value of that name is written: its unit, what it is divided by, its decimals."""
    for end, told in _UNITS.items():
        if name == end or name.endswith(f"_{end}"):
            return told
    return "", 1, 3


def is_summary(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether a value holds raw samples; see `timing.summary`."""
    return isinstance(value, Mapping) and "samples_ms" in value


def _common(group: Sequence[Measurement], part: str) -> list[str]:
    """The names in any of a group, in order."""
    return list(dict.fromkeys(name for each in group for name in getattr(each, part)))


def _fits(group: Sequence[Measurement], name: str) -> bool:
    """Whether a value fits a cell: no list of things, which have columns of their own."""
    values = [each.values.get(name) for each in group]
    return all(is_summary(v) or not isinstance(v, list | dict) for v in values)


def plain_words(name: str, with_unit: bool = False) -> str:
    """A value's name in words, its unit behind a comma."""
    for end, (unit, _, _) in _UNITS.items():
        if with_unit and name.endswith(f"_{end}"):
            return f"{name[: -len(end) - 1].replace('_', ' ')}, {unit}"
    return name.replace("_", " ")


def _value(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    unit, divisor, digits = unit_of(name)
    if isinstance(value, int) and divisor == 1:
        return str(value)
    return number(value / divisor, digits) if unit else f"{value:g}"


def _cell(summary: Mapping[str, Any] | None, name: str) -> str:
    """A number of a summary; a dash for a percentile beyond which no sample lies."""
    if summary is None:
        return "-"
    percentile = re.fullmatch(r"p(\d+)_ms", name)
    if percentile and not tellable(int(percentile[1]), summary["runs"]):
        return "-"
    return number(summary.get(name), 1)


def _interval(ratio: Ratio | None) -> str:
    if ratio is None or ratio.low is None or ratio.high is None:
        return "-"
    return f"{ratio.low:.2f} to {ratio.high:.2f}"


def markdown_of(kind: str, found: Sequence[Measurement]) -> str:
    """The tables of one kind as Markdown, each with what it covers; empty if there is none."""
    of_kind = [each for each in found if each.kind == kind]
    across = "".join(f"- {line}\n" for line in across_scopes(of_kind))
    return "\n".join(markdown(table) for table in tables(of_kind)) + (across and f"\n{across}")


_IN_FULL_ONLY = ("preprocess", "p10", "p99", "frames/s", "95 %")


def markdown(table: BenchTable) -> str:
    """A table as Markdown; of latencies without the columns that few readers ask for."""
    left_out = _IN_FULL_ONLY if table.kind == "latency" else ()
    kept = [i for i, name in enumerate(table.header) if name not in left_out]
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    written = "".join(f"| {' | '.join(line[i] for i in kept)} |\n" for line in lines)
    notes = "\n".join(f"{note}." for note in [*table.notes, f"Scope: {SCOPES[table.scope]}"])
    return f"{written}\n{notes}\n"
