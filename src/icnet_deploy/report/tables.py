"""Tables: the same cells for a terminal, for HTML and for Markdown."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from icnet_deploy.report.html import Html, tag


@dataclass(frozen=True)
class Table:
    """Cells in rows and columns.

    Attributes:
        header: the columns' names.
        rows: as many cells each; a cell of an HTML table may be markup (`Html`).
        left: how many columns, from the first, hold words; the others hold numbers.
        notes: sentences that belong below it.
        keys: how many columns, from the first, say what a row is of.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    notes: Sequence[str] = ()
    keys: int = 1

    def text(self, width: float | None = None) -> str:
        """For a terminal: columns lined up, the notes below.

        What is wider than the terminal is folded: the columns that have no room stand in a further
        table below, beside those that say what a row is of.

        Args:
            width: of the terminal; None asks it, and folds nothing in a file or a pipe.
        """
        most = _terminal() if width is None else width
        lines = [list(self.header), *(list(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        lines.insert(1, ["-" * width for width in widths])
        shown = [
            [
                cell.ljust(size) if i < self.left else cell.rjust(size)
                for i, (cell, size) in enumerate(zip(line, widths, strict=True))
            ]
            for line in lines
        ]
        parts = [
            "\n".join("  ".join(line[i] for i in columns).rstrip() for line in shown)
            for columns in self._folded(widths, most)
        ]
        return "\n".join(["\n\n".join(parts), *self.notes])

    def _folded(self, widths: Sequence[int], most: float) -> list[list[int]]:
        """Which columns stand side by side, so that no line is longer than `most` if it can be."""
        keys = list(range(self.keys))
        parts = [keys[:]]
        for i in range(self.keys, len(widths)):
            line = [*parts[-1], i]
            if parts[-1] != keys and sum(widths[j] + 2 for j in line) - 2 > most:
                parts.append([*keys, i])
            else:
                parts[-1] = line
        return parts

    def html(self) -> Html:
        """As an element that scrolls by itself on a narrow screen; without the notes."""

        def cells(kind: str, row: Sequence[str]) -> list[Html]:
            return [
                tag(kind, cell, class_="n") if i >= self.left else tag(kind, cell)
                for i, cell in enumerate(row)
            ]

        head = tag("thead", tag("tr", cells("th", self.header)))
        body = tag("tbody", [tag("tr", cells("td", row)) for row in self.rows])
        return tag("div", tag("table", head, body), class_="scroll")

    def markdown(self, right: bool = False) -> str:
        """As Markdown, a line a row; without the notes.

        Args:
            right: align the columns of numbers to the right.
        """
        rule = "---:" if right else "---"
        marks = ["---" if i < self.left else rule for i in range(len(self.header))]
        return "".join(f"| {' | '.join(line)} |\n" for line in (self.header, marks, *self.rows))

    def without(self, names: Collection[str]) -> Table:
        """The same without the columns of these names."""
        kept = [i for i, name in enumerate(self.header) if name not in names]
        rows = [[row[i] for i in kept] for row in self.rows]
        left = sum(i < self.left for i in kept)
        return replace(self, header=[self.header[i] for i in kept], rows=rows, left=left)


def _terminal() -> float:
    """How many letters a line of the terminal has; endless where the output is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else math.inf


def number(value: float | None, digits: int = 2) -> str:
    """A number to so many decimals; a dash where there is none (None or NaN)."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    """As `number`, with its sign; what rounds to zero has none."""
    if value is None or math.isnan(value):
        return "-"
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def bounded(value: float, low: float, high: float, digits: int = 3) -> str:
    """A difference and its bounds: `-0.021 [-0.052, +0.009]`."""
    return f"{signed(value, digits)} [{signed(low, digits)}, {signed(high, digits)}]"


def facts(values: Mapping[str, object]) -> Html:
    """A table of names and values in words."""
    rows = [
        tag("tr", tag("th", name), tag("td", str(value), class_="wrap"))
        for name, value in values.items()
    ]
    return tag("div", tag("table", tag("tbody", rows)), class_="scroll")


def where(machine: Mapping[str, Any]) -> list[Html]:
    """The machine and the versions that a result was made with."""
    words = {k: " ".join(map(str, v)) if isinstance(v, list) else v for k, v in machine.items()}
    shown = {name.replace("_", " "): value for name, value in words.items() if value}
    return [tag("h2", "Machine and versions"), facts(shown)]
