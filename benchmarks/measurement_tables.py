"""Measurements as tables: the same cells for a terminal, for Markdown and for the HTML report.

A kind of measurement that is not in `KINDS` has a table, too; its row there says what is its own.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from icnet_deploy.benchmarks.measurement import SCOPES, Measurement, Ratio, ratio_of_medians
from icnet_deploy.report.tables import Table, number
from icnet_deploy.timing import tellable

_STAGES = ("preprocess", "inference", "label_map")

_UNITS: Mapping[str, tuple[str, float, int]] = {
    "ms": ("ms", 1, 1),
    "bytes": ("MiB", 2**20, 1),
    "percent": ("%", 1, 1),
    "per_s": ("a second", 1, 2),
    "frames": ("frames", 1, 0),
}
"""The end of a value's name -> how it is written, what it is divided by, and its decimals."""

_SUBJECT = ("artefact", "precision", "runs on")
"""The columns that say what a row is of."""


@dataclass(frozen=True)
class MeasuredTable(Table):
    """Rows that may be compared with one another: one kind, scope, size, batch and machine.

    Attributes:
        measured: the measurement behind each row.
    """

    measured: Sequence[Measurement] = ()


def tables(measured: Sequence[Measurement]) -> list[MeasuredTable]:
    """A table for each group of measurements that may be compared, in order of appearance."""
    groups: dict[tuple[str, ...], list[Measurement]] = {}
    for each in measured:
        alike = ("size", *kind_row(each.kind).alike)
        settings = [str(each.setting.get(name)) for name in alike]
        places = (repr(each.machine), repr(each.versions))
        groups.setdefault((each.kind, each.scope, *settings, *places), []).append(each)
    return [kind_row(group[0].kind).table(group) for group in groups.values()]


def text(measured: Sequence[Measurement]) -> str:
    """For a terminal: every table with its scope, then the ratios across scopes."""
    parts = []
    for table in tables(measured):
        scope = table.measured[0].scope
        notes = ["", *table.notes, f"scope, {scope}: {SCOPES[scope]}"]
        parts.append(replace(table, notes=notes).text())
    across = across_scopes(measured)
    return "\n\n".join([*parts, *(["\n".join(across)] if across else [])])


def markdown_of(kind: str, measured: Sequence[Measurement]) -> str:
    """The tables of one kind as Markdown, each with what it covers; empty if there is none."""
    of_kind = [each for each in measured if each.kind == kind]
    parts = []
    for table in tables(of_kind):
        covers = f"Scope: {SCOPES[table.measured[0].scope]}"
        notes = "\n".join(f"{note}." for note in [*table.notes, covers])
        parts.append(f"{table.without(KINDS[kind].rarely_read).markdown()}\n{notes}\n")
    across = "".join(f"- {line}\n" for line in across_scopes(of_kind))
    return "\n".join(parts) + (across and f"\n{across}")


def mode_text(
    measured: Sequence[Measurement],
    header: Sequence[str],
    cells: Callable[[Measurement], Sequence[str]],
    notes: Sequence[str],
    left: int = 3,
) -> str:
    """What a mode shows of what it measured: a row each, and how and where below it.

    Args:
        measured: at least one.
        header: the columns after those that say what a row is of.
        cells: of a row, in these columns.
        notes: how it was measured.
        left: how many columns, from the first, hold words.
    """
    rows = [[*_subject_cells(each), *cells(each)] for each in measured]
    return Table([*_SUBJECT, *header], rows, left, how(measured, notes), len(_SUBJECT)).text()


def how(measured: Sequence[Measurement], notes: Sequence[str]) -> list[str]:
    """What stands below a table: where it was measured, how, and what it covers."""
    scopes = dict.fromkeys(each.scope for each in measured)
    covers = [f"scope, {scope}: {SCOPES[scope]}" for scope in scopes]
    return ["", machine_words(measured[0]), *notes, *covers]


def _subject_cells(each: Measurement) -> list[str]:
    """The artefact, its precision, and what ran it."""
    row = each.subject
    return [row["name"], row["precision"], f"{row['runtime']}, {row['device']}"]


def p90(summary: Mapping[str, Any], digits: int = 1) -> str:
    """The 90th percentile of a `timing.summary`, where so many samples can tell it."""
    return _cell(summary, "p90_ms", digits)


def _latency_table(group: Sequence[Measurement]) -> MeasuredTable:
    """Milliseconds by stage, percentiles, frames a second, and the ratio to the first row."""
    stages = [name for name in _STAGES if any(name in each.values for each in group)]
    rows = []
    for each in group:
        total, ratio = each.values.get("total"), _ratio_to(each, group[0])
        median = median_ms(each)
        rows.append(
            [
                *_wide_subject(each),
                *(_cell(each.values.get(name), "median_ms") for name in stages),
                number(median, 1),
                *(_cell(total, name) for name in ("p10_ms", "p90_ms", "p99_ms")),
                number(1e3 / median if median else None, 1),
                number(ratio.value if ratio else None),
                interval(ratio) if each is not group[0] else "",
            ]
        )
    ends = ("total", "p10", "p90", "p99", "frames/s", "ratio to first", "95 %")
    header = [*_SUBJECT, *(plain_words(name) for name in stages), *ends]
    in_turn = [each for each in group if "total" in each.values]
    alone = [each.name for each in group if each not in in_turn]
    runs = " or ".join(map(str, dict.fromkeys(e.values["total"]["runs"] for e in in_turn)))
    warmup = group[0].setting.get("warmup")
    after = f", after {warmup} warm-up runs" if warmup else ""
    notes = [f"{_setting_words(group)}; medians in ms"]
    if in_turn:
        notes[0] += f" of {runs} runs each, in turn{after}"
    if alone:
        notes.append(f"timed in its own process by its own clock, not in turn: {', '.join(alone)}")
    return MeasuredTable(header, rows, 3, notes, len(_SUBJECT), group)


def median_ms(each: Measurement) -> float:
    """The median of a latency in milliseconds; what times itself tells it without samples."""
    total = each.values.get("total")
    return float(total["median_ms"] if total else each.values["median_ms"])


def _ratio_to(each: Measurement, first: Measurement) -> Ratio | None:
    """How many times the first's total it takes; they were taken in turn."""
    if "total" not in each.values or "total" not in first.values:
        below = median_ms(first)
        return Ratio(median_ms(each) / below) if below else None
    samples = [one.values["total"]["samples_ms"] for one in (each, first)]
    return ratio_of_medians(samples[0], samples[1], in_turn=True)


def across_scopes(measured: Sequence[Measurement]) -> list[str]:
    """Sentences that set latencies of one file and unlike scopes against each other, and say so."""
    latencies = [each for each in measured if each.kind == "latency"]
    lines = []
    for each in latencies:
        for other in latencies:
            like = all(each.setting[name] == other.setting[name] for name in ("size", "batch"))
            one_file = each.subject.get("sha256") == other.subject.get("sha256") is not None
            if like and one_file and each.scope == "image-to-labels" and other.scope != each.scope:
                ratio = _ratio_to(each, other)
                alone = "" if "total" in other.values else ", and was not timed in turn"
                lines.append(
                    f"across scopes: {who(each)} ({each.scope}) takes "
                    f"{number(ratio.value if ratio else None)} times as long as {other.name} "
                    f"({other.scope}, which covers less{alone})"
                )
    return lines


def _any_table(group: Sequence[Measurement]) -> MeasuredTable:
    """Any other kind: medians and p90 of what has samples, numbers with their units."""
    settings = [name for name in _common(group, "setting") if name != "size"]
    apart = [name for name in settings if len({repr(e.setting.get(name)) for e in group}) > 1]
    names = [name for name in _common(group, "values") if _fits(group, name)]
    sampled = [name for name in names if _has_samples([e.values.get(name) for e in group])]
    # The p90 of each part would make a wide table wider, and few look for it there.
    with_p90 = [name for name in sampled if len(sampled) <= 3 or name == "total"]
    header = [*_SUBJECT, *(plain_words(name, True) for name in apart)]
    for name in names:
        header.append(f"{plain_words(name)}, ms" if name in sampled else plain_words(name, True))
        header += ["p90"] * (name in with_p90)
    rows = []
    for each in group:
        cells = [*_wide_subject(each), *(_value(name, each.setting.get(name)) for name in apart)]
        for name in names:
            value = each.values.get(name)
            cells.append(_cell(value, "median_ms") if name in sampled else _value(name, value))
            if name in with_p90:
                cells.append(_cell(value, "p90_ms"))
        rows.append(cells)
    alike = [
        f"{plain_words(name, True)}: {_value(name, group[0].setting[name])}"
        for name in settings
        if name not in (*apart, "batch")
    ]
    notes = ["; ".join([_setting_words(group), *alike])]
    return MeasuredTable(header, rows, 3, notes, len(_SUBJECT), group)


def who(each: Measurement) -> str:
    """A subject and what it ran on, where that is known."""
    words = device_words(each)
    return f"{each.name} on {words}" if words != "-" else each.name


def device_words(each: Measurement) -> str:
    """What it ran on: runtime, device, and threads and streams where they were chosen."""
    subject = each.subject
    words = [str(subject[name]) for name in ("runtime", "device") if subject.get(name)]
    for name, default in (("threads", None), ("streams", 1)):
        value = subject.get(name)
        if value not in (None, default):
            words.append(f"{value} {name if value != 1 else name[:-1]}")
    return ", ".join(words) or "-"


def machine_words(each: Measurement) -> str:
    """The processor and its cores."""
    return f"{each.machine.get('cpu')}, {each.machine.get('cores')} cores"


def unit_of(name: str) -> tuple[str, float, int]:
    """How a value of that name is written: its unit, what it is divided by, its decimals."""
    for end, unit in _UNITS.items():
        if name == end or name.endswith(f"_{end}"):
            return unit
    return "", 1, 3


def is_summary(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether a value holds raw samples; see `timing.summary`."""
    return isinstance(value, Mapping) and "samples_ms" in value


def plain_words(name: str, with_unit: bool = False) -> str:
    """A value's name in words, its unit behind a comma."""
    for end, (unit, _, _) in _UNITS.items():
        if with_unit and name.endswith(f"_{end}"):
            return f"{name[: -len(end) - 1].replace('_', ' ')}, {unit}"
    return name.replace("_", " ")


def interval(ratio: Ratio | None, digits: int = 2) -> str:
    """The interval of a ratio that its samples allow; a dash where there is none."""
    if ratio is None or ratio.low is None or ratio.high is None:
        return "-"
    return f"{number(ratio.low, digits)} to {number(ratio.high, digits)}"


def _wide_subject(each: Measurement) -> list[str]:
    return [each.name, str(each.subject.get("precision") or "-"), device_words(each)]


def _setting_words(group: Sequence[Measurement]) -> str:
    """The size, batch and machine of a group, in words."""
    first = group[0]
    size = first.setting.get("size")
    words = ["x".join(map(str, size))] if size else []
    if len({repr(each.setting.get("batch")) for each in group}) == 1 and first.setting.get("batch"):
        words.append(f"batch {first.setting['batch']}")
    return ", ".join([*words, machine_words(first)])


def _common(group: Sequence[Measurement], part: str) -> list[str]:
    """The names in any of a group, in order."""
    return list(dict.fromkeys(name for each in group for name in getattr(each, part)))


def _fits(group: Sequence[Measurement], name: str) -> bool:
    """Whether a value fits a cell: no list of things, which have columns of their own."""
    values = [each.values.get(name) for each in group]
    return all(is_summary(v) or not isinstance(v, list | dict) for v in values)


def _has_samples(values: Sequence[Any]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(map(is_summary, known))


def _value(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    unit, divisor, digits = unit_of(name)
    if isinstance(value, int) and divisor == 1:
        return str(value)
    return number(value / divisor, digits) if unit else f"{value:g}"


def _cell(summary: Any, name: str, digits: int = 1) -> str:
    """A number of a summary; a dash for what has none, and for a percentile beyond all."""
    if not is_summary(summary):
        return "-"
    percentile = re.fullmatch(r"p(\d+)_ms", name)
    if percentile and not tellable(int(percentile[1]), summary["runs"]):
        return "-"
    return number(summary.get(name), digits)


@dataclass(frozen=True)
class Kind:
    """What is said of one kind of measurement.

    Attributes:
        title: over its tables.
        table: makes one of rows that may be compared.
        alike: settings beside the size that such rows have alike.
        best: the value that a reader came for, which of them is best, and what it is, in words.
        rarely_read: columns that Markdown leaves out.
    """

    title: str
    table: Callable[[Sequence[Measurement]], MeasuredTable] = _any_table
    alike: Sequence[str] = ("batch",)
    best: tuple[str, Callable[..., Measurement], str] | None = None
    rarely_read: Sequence[str] = ()


KINDS: dict[str, Kind] = {
    "latency": Kind(
        "Latency", _latency_table, rarely_read=("preprocess", "p10", "p99", "frames/s", "95 %")
    ),
    # Which asks what a batch is worth.
    "throughput": Kind("Throughput", alike=(), best=("images_per_s", max, "images a second")),
    "stages": Kind("Where the time of an image goes"),
    "start": Kind(
        "From a process's start to its first label map",
        best=("total", min, "to the first label map"),
    ),
    "memory": Kind("Memory and size", best=("peak_bytes", min, "peak memory")),
    "paced": Kind("Frames at a fixed rate"),
}
"""The benchmark -> what is said of what it measured."""


def kind_row(kind: str) -> Kind:
    """What is said of a kind of measurement."""
    return KINDS.get(kind) or Kind(kind)
