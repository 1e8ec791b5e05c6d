"""What runs of the fuzz found, kept as JSON: each run is added, and a table shows them together."""

from collections import Counter
from collections.abc import Mapping, Sequence
from os.path import exists
from pathlib import Path
from typing import Any

from icnet_deploy.documents import (
    BOOL,
    COUNT,
    FROM_ZERO,
    OBJECT,
    TEXT,
    Schema,
    list_of,
    object_of,
    object_with,
    one_of,
)
from icnet_deploy.files import write_json
from icnet_deploy.report.tables import Table
from tools.fuzz.judge import FAILED, FOUND, REFUSED, RESULT
from tools.fuzz.registry import TARGETS

_NEWEST = 1
_OUTCOMES = (RESULT, REFUSED, FAILED, FOUND)
_OF_A_TARGET = object_with(
    {
        "inputs": COUNT,
        **dict.fromkeys(_OUTCOMES, COUNT),
        "marks": object_of(COUNT),
        "faults": object_of(COUNT),
        "seconds": FROM_ZERO,
    }
)
_RUN = object_with(
    {
        "date": TEXT,
        "versions": OBJECT,
        "machine": OBJECT,
        "guided": BOOL,
        "seed": COUNT,
        "targets": object_of(_OF_A_TARGET),
    }
)
_SCHEMA = Schema(
    "what `python -m tools.fuzz --json` writes",
    {"kind": one_of("fuzz"), "runs": list_of(_RUN)},
    newest=_NEWEST,
)


def read_runs(path: Path) -> list[dict[str, Any]]:
    """The runs that a file holds; none where there is none (InputError: it is something else)."""
    return list(_SCHEMA.read(path)["runs"]) if exists(path) else []


def write_runs(path: Path, runs: Sequence[Mapping[str, Any]]) -> None:
    """Writes runs; OutputError if it cannot."""
    write_json(path, {"schema": _NEWEST, "kind": "fuzz", "runs": list(runs)})


def totals(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of all runs together: target -> outcomes, marks and faults, as a run has them."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        for name, one in run["targets"].items():
            total = found.setdefault(name, {"marks": Counter(), "faults": Counter()})
            for key in ("inputs", *_OUTCOMES, "seconds"):
                total[key] = total.get(key, 0) + one[key]
            total["marks"].update(one["marks"])
            total["faults"].update(one["faults"])
    return found


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """The table of a page: what is tried, and what came of it.

    Args:
        results: JSON of which those of this kind are shown.
    """
    runs = [run for one in results if one["kind"] == "fuzz" for run in one["runs"]]
    header = ["target", "inputs", "tried", *_OUTCOMES, "of these"]
    rows = [
        [
            f"`{name}`",
            TARGETS[name].what,
            *(f"{total[key]:,}" for key in ("inputs", *_OUTCOMES)),
            "; ".join(f"{mark} {count:,}" for mark, count in sorted(total["marks"].items())),
        ]
        for name, total in totals(runs).items()
        if name in TARGETS
    ]
    return Table(header, rows).markdown()
