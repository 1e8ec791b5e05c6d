"""`icnet benchmark compare`: two files of measurements, row by row, and what their samples tell."""

import argparse
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icnet_deploy.benchmarks.measurement import (
    ENOUGH,
    SCOPES,
    Measurement,
    Ratio,
    ratio_of_medians,
    read_measurements,
)
from icnet_deploy.benchmarks.measurement_tables import (
    interval,
    is_summary,
    plain_words,
    unit_of,
    who,
)
from icnet_deploy.command import Goal, command, number_type, options, parser
from icnet_deploy.documents import NUMBER, Kind
from icnet_deploy.errors import CheckFailed, InputError
from icnet_deploy.report.tables import Table, number

_ALIKE = ("size", "batch")
"""Settings that must be alike; `rounds` and `warmup` may differ, and the rest tell rows apart."""

_FREE = (*_ALIKE, "rounds", "warmup")

_HEADLINES = ("total", "latency")
"""The values that `--max-slowdown` holds to its limit, where a row has one of them; else all times
and rates: a stage of 10 microseconds may double and nobody is slower."""


@dataclass(frozen=True)
class _Matching:
    """Which row of one file is which of the other.

    Attributes:
        pairs: the rows of both, in the order of the first file.
        missing: the rows of the first file that the second lacks.
        new: the rows of the second file that the first lacks.
    """

    pairs: list[tuple[Measurement, Measurement]]
    missing: list[Measurement]
    new: list[Measurement]

    def only(self) -> list[str]:
        """Sentences on the rows that are in one file alone."""
        return [
            *(f"missing from the second file: {_what(row)}" for row in self.missing),
            *(f"new in the second file: {_what(row)}" for row in self.new),
        ]


@dataclass(frozen=True)
class _Change:
    """One value in both files.

    Attributes:
        first, second: the two rows.
        name: of the value.
        before, after: medians in ms of what has samples, otherwise the numbers.
        ratio: after / before, with an interval where both have samples; None if before is 0.
        sampled: whether both have samples.
    """

    first: Measurement
    second: Measurement
    name: str
    before: float
    after: float
    ratio: Ratio | None
    sampled: bool

    @property
    def verdict(self) -> str:
        """In words, what the samples can tell."""
        if not self.sampled:
            return "undecided: no samples"
        if self.ratio is None or self.ratio.differs is None:
            return f"undecided: fewer than {ENOUGH} samples"
        if not self.ratio.differs:
            return "no clear difference"
        return "slower" if self.ratio.value > 1 else "faster"

    def slowdown(self) -> float:
        """How many times slower the second is; 1 of what is no time and no rate, or is in doubt."""
        rate = self.name.endswith("_per_s")
        tells = self.ratio.differs if self.sampled and self.ratio else self.name.endswith("_ms")
        if self.ratio is None or not (tells or rate):
            return 1
        if rate:
            return 1 / self.ratio.value if self.ratio.value else math.inf
        return self.ratio.value


def match(first: Sequence[Measurement], second: Sequence[Measurement]) -> _Matching:
    """Pairs rows by kind, name, runtime, device, streams and setting.

    Raises:
        InputError: a row's scope, size or batch differs, or the files hold no common kind.
    """
    kinds = [{each.kind for each in rows} for rows in (first, second)]
    if not kinds[0] & kinds[1]:
        words = " and ".join(", ".join(sorted(each)) for each in kinds)
        raise InputError(
            f"the files hold different kinds of measurements ({words}): give two files of the "
            "same benchmark"
        )
    pairs, missing, left = [], [], list(second)
    for row in first:
        like = [each for each in left if _key(each) == _key(row)]
        same = [each for each in like if not _unlike(row, each)]
        if same:
            pairs.append((row, same[0]))
            left.remove(same[0])
        else:
            missing.append(row)
    for row in missing:
        for other in left:
            if _key(other) == _key(row):
                raise InputError(
                    f"{_what(row)} cannot be compared: {_unlike(row, other)}: measure both in the "
                    "same way"
                )
    matching = _Matching(pairs, missing, left)
    if not pairs:
        raise InputError(
            f"the files have no row in common ({'; '.join(matching.only())}): give two "
            "measurements of the same artefacts"
        )
    return matching


def changes(pairs: Sequence[tuple[Measurement, Measurement]]) -> list[_Change]:
    """Every value that both rows of a pair have."""
    values = []
    for first, second in pairs:
        for name, before in first.values.items():
            after: Any = second.values.get(name)
            if is_summary(before) and is_summary(after):
                ratio = ratio_of_medians(after["samples_ms"], before["samples_ms"])
                medians = before["median_ms"], after["median_ms"]
                values.append(_Change(first, second, name, *medians, ratio, True))
            elif NUMBER.fits(before) and NUMBER.fits(after):
                ratio = Ratio(after / before) if before else None
                values.append(_Change(first, second, name, before, after, ratio, False))
    return values


def _warnings(pairs: Sequence[tuple[Measurement, Measurement]]) -> list[str]:
    """Sentences on what else differs between the two, each once."""
    notes: dict[str, None] = {}
    for first, second in pairs:
        for part, words in (("machine", "machines"), ("versions", "versions")):
            difference = _differences(getattr(first, part), getattr(second, part))
            if difference:
                notes[f"note: the {words} differ ({difference}), which may change the ratio"] = None
        for name, words in (("sha256", "another file"), ("threads", "another number of threads")):
            difference = _differences(*({name: e.subject.get(name)} for e in (first, second)))
            if difference:
                notes[f"note: {who(first)} was measured with {words} ({difference})"] = None
    return list(notes)


def slowdowns(values: Sequence[_Change], limit: float) -> list[str]:
    """Sentences on what is slower than allowed, and by more than its samples leave in doubt."""
    return [
        f"{who(change.first)}, {change.name}: {change.slowdown():.3f} times as slow"
        for change in values
        if change.slowdown() > limit and change.name in _held(change.first)
    ]


def lost(matching: _Matching) -> list[str]:
    """Sentences on what `slowdowns` would be held to and the second file does not tell.

    A baseline's row that was not measured again, or that lacks the value, is not known to be fast.
    """
    gone = [_what(row) for row in matching.missing]
    for first, second in matching.pairs:
        comparable = {change.name for change in changes([(first, second)])}
        gone += [f"{name} of {_what(first)}" for name in _held(first) if name not in comparable]
    return [f"missing from the second file: {what}" for what in gone]


def _held(row: Measurement) -> list[str]:
    """The names of the times and rates that `--max-slowdown` is for."""
    headlines = [name for name in _HEADLINES if name in row.values]
    times = [
        name
        for name, value in row.values.items()
        if is_summary(value) or (NUMBER.fits(value) and name.endswith(("_ms", "_per_s")))
    ]
    return headlines or times


def _key(row: Measurement) -> tuple[str, ...]:
    subject = [repr(row.subject.get(name)) for name in ("runtime", "device", "streams")]
    setting = sorted(item for item in row.setting.items() if item[0] not in _FREE)
    return (row.kind, row.name, *subject, repr(setting))


def _unlike(first: Measurement, second: Measurement) -> str:
    """What forbids a comparison of two rows, in words; empty if nothing does."""
    if first.scope != second.scope:
        scopes = " and ".join(f"{s.scope} ({SCOPES[s.scope]})" for s in (first, second))
        return f"the scopes differ, {scopes}"
    for name in _ALIKE:
        values = [row.setting.get(name) for row in (first, second)]
        if values[0] != values[1]:
            words = ["x".join(map(str, v)) if isinstance(v, list) else str(v) for v in values]
            return f"the {name} differs, {words[0]} and {words[1]}"
    return ""


def _what(row: Measurement) -> str:
    return f"{row.kind} of {who(row)}"


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    pairs = {name: (first.get(name), second.get(name)) for name in [*first, *second]}
    return "; ".join(
        f"{name}: {_short(a)} and {_short(b)}" for name, (a, b) in pairs.items() if a != b
    )


def _short(value: Any) -> str:
    words = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    if value is None or not words:
        return "none"
    return f"{words[:12]}..." if re.fullmatch(r"[0-9a-f]{64}", words) else words


def _table(values: Sequence[_Change]) -> Table:
    header = ["kind", "what", "value", "A", "B", "B / A", "95 %", "verdict"]
    rows = []
    for change in values:
        _, divisor, digits = ("ms", 1, 2) if change.sampled else unit_of(change.name)
        rows.append(
            [
                change.first.kind,
                who(change.first),
                f"{change.name}, ms" if change.sampled else plain_words(change.name, True),
                number(change.before / divisor, digits),
                number(change.after / divisor, digits),
                number(change.ratio.value if change.ratio else None, 3),
                interval(change.ratio, 3),
                change.verdict,
            ]
        )
    table = Table(header, rows, left=3)
    return table.without(["kind"] if len({row[0] for row in rows}) == 1 else [])


_RATIO = Kind(lambda value: NUMBER.fits(value) and value >= 1, "a number from 1 on, e.g. 1.05")


def _parser() -> argparse.ArgumentParser:
    compare = parser(
        "icnet benchmark compare",
        "Compares two files of measurements, and shows by what factor the second is slower.",
        "icnet benchmark compare before.jsonl after.jsonl --max-slowdown 1.05",
    )
    measurements = "measurements that icnet benchmark wrote with --json"
    compare.add_argument("first", type=Path, metavar="A.jsonl", help=f"{measurements}: before")
    compare.add_argument(
        "second",
        type=Path,
        metavar="B.jsonl",
        help=f"{measurements}: after; with the scopes, image sizes and batches of A",
    )
    options(compare, Goal.LIMITS).add_argument(
        "--max-slowdown",
        type=number_type(_RATIO),
        metavar="RATIO",
        help="exit with 1 if a row of B is more than RATIO times as slow as in A and its 95 %% "
        "interval excludes 1, or if B lacks a row of A",
    )
    return compare


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet benchmark compare`; returns its exit code."""
    arguments = _parser().parse_args(argv)
    matching = match(*(read_measurements(path) for path in (arguments.first, arguments.second)))
    values = changes(matching.pairs)
    scopes = dict.fromkeys(first.scope for first, _ in matching.pairs)
    covers = [f"\nscope, {scope}: {SCOPES[scope]}" for scope in scopes]
    notes = [*covers, *_warnings(matching.pairs), *matching.only()]
    print("\n".join([_table(values).text(), *notes]))
    if arguments.max_slowdown:
        late = slowdowns(values, arguments.max_slowdown)
        past = f"past --max-slowdown {arguments.max_slowdown:g}: " if late else ""
        if failed := [*late, *lost(matching)]:
            raise CheckFailed(past + "; ".join(failed))
    return 0
