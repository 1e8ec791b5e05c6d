"""The tables of the yardstick."""

from collections.abc import Mapping, Sequence
from typing import Any

from icnet_deploy.evaluation.confidence.differences import Differences
from icnet_deploy.report.tables import Table, bounded, number
from tools.yardstick.looks import LOOKS, PLAIN

_HEADER = ("street", "size", "frames", "look", "mIoU % [95 %]", "pixels %", "mIoU moves by, points")


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each row of a result, and below what it rests on."""
    lines = []
    for row in rows:
        own, score = row["miou_points"], row["score"]
        moved = row.get("moved_points")
        between = f"{number(own['value'], 1)} [{number(own['low'], 1)}, {number(own['high'], 1)}]"
        lines.append(
            (
                row["street"],
                row["deployed"],
                row["protocol"]["model_size"],
                row["look"],
                between,
                number(score["pixel_accuracy_percent"], 1),
                "-" if moved is None else _points(moved["miou"]),
            )
        )
    return Table(_HEADER, lines, left=4, notes=_notes(rows), keys=4)


def classes(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """For each street the IoU of its classes, in percent, on the plain frames."""
    tables = []
    for street in dict.fromkeys(row["street"] for row in rows):
        plain = [row for row in rows if row["street"] == street and row["look"] == PLAIN]
        names = list(plain[0]["score"]["iou_percent"])
        lines = [
            (name, *(number(row["score"]["iou_percent"][name], 1) for row in plain))
            for name in names
        ]
        tables.append(Table((street, *(row["deployed"] for row in plain)), lines))
    return tables


def comparison(found: Mapping[tuple[str, str], Differences], other: str) -> Table:
    """How far the plain scores are above those of another result."""
    lines = [(*key, each.miou.text(1), each.pixel_accuracy.text(1)) for key, each in found.items()]
    return Table(("street", "size", f"mIoU, points from {other}", "pixels, points"), lines, left=2)


def _points(value: Mapping[str, float]) -> str:
    return bounded(value["value"], value["low"], value["high"], 1)


def _notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    bases = dict.fromkeys(
        f"{row['street']}: {row['basis']}" for row in rows if row["look"] == PLAIN
    )
    left = {
        f"{row['street']}: seen too little to be in the mean: {', '.join(row['classes_left_out'])}"
        for row in rows
        if row["classes_left_out"]
    }
    looks = dict.fromkeys(row["look"] for row in rows)
    words = "; ".join(f"{name}: {LOOKS[name].words}" for name in looks)
    return [*bases, *sorted(left), *([words] if len(looks) > 1 else [])]
