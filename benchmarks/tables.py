"""Plain-text tables for a terminal, and how numbers are written in them and in the reports."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["number", "signed", "text_table"]


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Lines the columns up.

    Args:
        header: the columns' names.
        rows: as many cells each.
        left: how many columns, from the first, are aligned to the left; the rest to the right.
    """
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def number(value: float | None, digits: int = 2) -> str:
    """A number to so many decimals; a dash where there is none (None or NaN)."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    """As `number`, with its sign; what rounds to zero has none."""
    if value is None or math.isnan(value):
        return "-"
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text
