"""What `icnet benchmark paper` prints, and its HTML report."""

from __future__ import annotations

from typing import Any

from icnet_deploy.benchmarks.paper.tables import grids, method, statement, summary_line
from icnet_deploy.report.html import page, tag
from icnet_deploy.report.parts import facts, table, where
from icnet_deploy.report.tables import text_table
from icnet_deploy.runtime.machine import machine, versions

_TITLE = "The ICNet paper's tables"


def paper_text(result: dict[str, Any]) -> str:
    """A result of the kind `paper` for the terminal."""
    lines = [f"{_TITLE} on {summary_line(result)}"]
    for grid in grids(result):
        lines += ["", grid.title, text_table(grid.header, grid.rows), *grid.notes]
    told = statement(result)
    lines += ["", *told] if told else []
    lines += ["", *(f"{name}: {words}" for name, words in method(result).items())]
    return "\n".join(lines)


def paper_page(result: dict[str, Any]) -> str:
    """A result of the kind `paper` as one HTML document."""
    told = [tag("p", line) for line in statement(result)]
    shown = [
        [tag("h2", g.title), table(g.header, g.rows), [tag("p", note) for note in g.notes]]
        for g in grids(result)
    ]
    return page(
        _TITLE,
        tag("p", summary_line(result)),
        [tag("h2", "The half PSPNet50 against ICNet"), *told] if told else [],
        *(part for parts in shown for part in parts),
        tag("h2", "How it was measured"),
        facts(method(result)),
        where(machine() | versions()),
    )
