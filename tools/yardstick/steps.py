"""The table of what each step of the shipped checkpoint's recipe gained (docs/decisions)."""

from collections.abc import Mapping, Sequence
from typing import Any

from icnet_deploy.report.tables import Table
from tools.yardstick.rows import compared

_STEPS = (
    ("labels", "before", "`labels`: a teacher's, and KITTI"),
    ("sizes-and-appearance", "labels", "`sizes-and-appearance`"),
    ("larger-crops", "sizes-and-appearance", "`larger-crops`: 513x769, four a step"),
    ("larger-crops", "before", "all of these"),
    ("longer", "larger-crops", "`longer`: as many steps again, from `larger-crops`"),
    ("second-round", "longer", "`second-round`: the same on labels made again"),
)
"""Result -> what it is held to, and how the table calls the difference."""


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """The steps' table.

    Args:
        results: those of kind `yardstick`, whose `file` is a step's name; others are passed over.
    """
    by_name = {r["file"]: r["rows"] for r in results if r["kind"] == "yardstick"}
    if "before" not in by_name:
        return ""
    start = {(r["street"], r["deployed"]): r for r in by_name["before"] if r["look"] == "plain"}
    header = ["step", "against", *(" ".join(key) for key in start)]
    scores = [f"{r['score']['miou_percent']:.1f} %" for r in start.values()]
    lines = [["`before`: `street-first` again, mIoU", "-", *scores]]
    for name, other, words in _STEPS:
        found = compared(by_name[name], by_name[other])
        gains = [found[key].miou.text(1) for key in start]
        lines.append([words, f"`{other}`", *gains])
    return Table(header, lines).markdown()
