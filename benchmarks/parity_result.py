"""The result of `icnet parity` as a table for the screen and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from icnet_deploy.benchmarks.budgets import BUDGETS
from icnet_deploy.benchmarks.comparison import Comparison
from icnet_deploy.benchmarks.machine import machine, versions
from icnet_deploy.benchmarks.scoring import size_text
from icnet_deploy.benchmarks.tables import number, signed, text_table

__all__ = ["SCHEMA", "to_dict", "verdict_table"]

SCHEMA = 1
"""Of the JSON result; raised when a reader of today could misunderstand it."""


def verdict_table(rows: Sequence[Comparison]) -> str:
    """The rows for the screen, what is wrong with any of them, and how they were scored."""
    header = [
        "artefact", "precision", "runtime", "size", "mIoU %", "points", "worst class", "points",
        "agree %", "ties", "flips", "small %", "points", "verdict",
    ]  # fmt: skip
    lines = [text_table(header, [_cells(row) for row in rows], left=4), ""]
    lines += [
        f"past budget: {row.name} on {row.runtime}: {'; '.join(row.breaches())}"
        for row in rows
        if row.breaches()
    ]
    protocol = rows[0].score.protocol()
    lines += [
        "points: the difference from the PyTorch model, float32 on the CPU, at the same size",
        "small: accuracy on the regions below 3,000 pixels",
        f"{protocol.images} images of {protocol.dataset} {protocol.split}, label sizes "
        f"{', '.join(protocol.label_sizes)}, label {protocol.ignored} ignored; {protocol.mapping}",
    ]
    return "\n".join(lines)


def _cells(row: Comparison) -> list[str]:
    name, points = row.worst_class()
    size = row.metadata.size
    return [
        row.name,
        row.metadata.precision,
        row.runtime,
        "image" if size is None else size_text(size),
        number(100 * row.score.confusion.miou()),
        signed(row.miou_points()),
        name if float(signed(points)) else "-",
        signed(points),
        number(100 * row.agreement(), 4),
        str(row.ties),
        str(row.flips),
        number(100 * row.score.regions.small()),
        signed(row.small_region_points(), 2),
        "past budget" if row.breaches() else "within",
    ]


def to_dict(rows: Sequence[Comparison], weights_sha256: str | None) -> dict[str, Any]:
    """The JSON result."""
    protocol = rows[0].score.protocol().to_dict()
    del protocol["model_size"], protocol["logits_resize"]  # these are each row's own
    references = {row.key: row.reference for row in rows}
    return {
        "schema": SCHEMA,
        "kind": "parity",
        "versions": versions(),
        "machine": machine(),
        "protocol": protocol,
        "budgets": {name: budget.to_dict() for name, budget in BUDGETS.items()},
        "references": [
            {
                "weights_sha256": weights_sha256,
                "size": None if size is None else list(size),
                "head": head,
                "score": score.to_dict(),
                "protocol": score.protocol().to_dict(),
            }
            for (size, head), score in references.items()
        ],
        "rows": [row.to_dict() for row in rows],
    }
