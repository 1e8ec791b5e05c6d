"""The parts that the reports are made of. Everything that is not markup gets escaped by `tag`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from icnet_deploy.report.html import Html, tag


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


def facts(values: Mapping[str, object]) -> Html:
    """A table of names and values in words."""
    rows = [
        tag("tr", tag("th", name), tag("td", str(value), class_="wrap"))
        for name, value in values.items()
    ]
    return tag("div", tag("table", tag("tbody", rows)), class_="scroll")


def figures(values: Mapping[str, str]) -> Html:
    """The few numbers that a reader came for, large."""
    return tag(
        "div",
        [
            tag("div", tag("b", value), tag("span", name, class_="quiet"))
            for name, value in values.items()
        ],
        class_="figures",
    )


def where(told: Mapping[str, Any]) -> list[Html]:
    """The machine and the versions that a result was made with."""
    words = {k: " ".join(map(str, v)) if isinstance(v, list) else v for k, v in told.items()}
    shown = {name.replace("_", " "): value for name, value in words.items() if value}
    return [tag("h2", "Machine and versions"), facts(shown)]
