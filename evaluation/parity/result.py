"""The result of `icnet parity` as a table for the screen and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from icnet_deploy.evaluation.pairing import ROUNDED
from icnet_deploy.evaluation.parity.comparison import Comparison
from icnet_deploy.evaluation.score import size_text
from icnet_deploy.report.tables import number, signed, text_table
from icnet_deploy.runtime.machine import machine, versions

SCHEMA = 1
"""Of the JSON result; raised when a reader of today could misunderstand it."""


class Failure(NamedTuple):
    """What has a row without numbers: a file, or a file on a runtime, that cannot be compared.

    Attributes:
        name, precision, runtime, size: as a table shows them; a dash for what is not known.
        reason: why, in words.
    """

    name: str
    precision: str
    runtime: str
    size: str
    reason: str

    def __str__(self) -> str:
        where = "" if self.runtime == "-" else f" on {self.runtime}"
        return f"{self.name}{where}: {self.reason}"


def verdict_table(
    rows: Sequence[Comparison], left_out: Sequence[str] = (), failures: Sequence[Failure] = ()
) -> str:
    """The table for the screen, what is wrong with any row, and how they were scored.

    Args:
        rows: what was compared.
        left_out: a sentence for each file and runtime that was not.
        failures: what could not be.
    """
    header = [
        "artefact", "precision", "runtime", "size", "mIoU %", "points", "worst class", "points",
        "agree %", "ties", "flips", "small %", "points", "verdict",
    ]  # fmt: skip
    cells = [_cells(row) for row in rows]
    cells += [[f.name, f.precision, f.runtime, f.size, *["-"] * 9, "failed"] for f in failures]
    lines = [text_table(header, cells, left=4), ""]
    lines += [
        f"past budget: {row.name} on {row.runtime}: {'; '.join(row.breaches())}"
        for row in rows
        if row.breaches()
    ]
    lines += [f"failed: {failure}" for failure in failures]
    lines += [f"not compared: {sentence}" for sentence in left_out]
    return "\n".join(lines + _how(rows))


def _how(rows: Sequence[Comparison]) -> list[str]:
    if not rows:
        return []
    protocol = rows[0].score.protocol()
    budgets = {row.metadata.precision: row.budget for row in rows}
    lines = [
        "points: the difference from the PyTorch model, float32 on the CPU, at the same size",
        "small: accuracy on the regions below 3,000 pixels",
    ]
    if any(row.runtime == ROUNDED for row in rows):
        lines.append(
            f"{ROUNDED}: every float16 value rounded, as a GPU does; CPUs compute such files in "
            "float32"
        )
    lines += [f"budget of {precision}: {budget}" for precision, budget in budgets.items()]
    lines.append(
        f"{protocol.images} images of {protocol.dataset} {protocol.split}, label sizes "
        f"{', '.join(protocol.label_sizes)}, label {protocol.ignored} ignored; {protocol.mapping}"
    )
    return lines


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


def to_dict(rows: Sequence[Comparison], left_out: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON result of at least one row, all of one checkpoint."""
    protocol = rows[0].score.protocol().to_dict()
    del protocol["model_size"], protocol["logits_resize"]  # these are each row's own
    references = {row.key: row.reference for row in rows}
    return {
        "schema": SCHEMA,
        "kind": "parity",
        "versions": versions(),
        "machine": machine(),
        "protocol": protocol,
        "budgets": {row.metadata.precision: row.budget.to_dict() for row in rows},
        "references": [
            {
                "weights_sha256": rows[0].metadata.weights_sha256,
                "size": None if size is None else list(size),
                "head": head,
                "score": score.to_dict(),
                "protocol": score.protocol().to_dict(),
            }
            for (size, head), score in references.items()
        ],
        "rows": [row.to_dict() for row in rows],
        "left_out": list(left_out),
    }
