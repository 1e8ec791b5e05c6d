"""Where these parts were, until everybody takes them from `report.html` and `report.tables`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from icnet_deploy.report.html import Html, facts, figures, tag, where

_LENT = (facts, figures, where)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> Html:
    """A table that scrolls by itself on a narrow screen; columns from `left` on hold numbers."""

    def cells(kind: str, row: Sequence[str]) -> list[Html]:
        return [
            tag(kind, cell, class_="n") if i >= left else tag(kind, cell)
            for i, cell in enumerate(row)
        ]

    head = tag("thead", tag("tr", cells("th", header)))
    body = tag("tbody", [tag("tr", cells("td", row)) for row in rows])
    return tag("div", tag("table", head, body), class_="scroll")
