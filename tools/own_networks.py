"""`python -m tools.own_networks OUT`: records what the example's networks of others came to.

`examples/own_network/run.py --out OUT` trained, exported and verified them; here every file of
floats is built with TensorRT for RTX, too, where that is installed. What 8 bits come to is recorded
by `tools.int8_networks`, on more scenes.
"""

import argparse
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from icnet_deploy.command import command, parser
from icnet_deploy.documents import parse
from icnet_deploy.errors import IcnetError, InputError, require
from icnet_deploy.evaluation.pairing import ROUNDED
from icnet_deploy.export.build_engine import build_engine
from icnet_deploy.export.engine.options import BuildOptions
from icnet_deploy.files import write_json
from icnet_deploy.precisions import PRECISIONS
from icnet_deploy.report.tables import Table, bounded
from icnet_deploy.runtime.auto.folder import read_artefacts
from icnet_deploy.runtime.machine import machine, versions

_SCHEMA = 1
_TARGETS = ("SM86",)
"""What engines are built for, which needs no GPU."""


def _row(verified: Mapping[str, Any], trained: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a file on a runtime: of a row of `icnet verify`, and of its weights' file."""
    return {
        "file": Path(verified["artefact"]).name,
        **{key: verified[key] for key in ("sha256", "size", "precision", "runtime", "verdict")},
        "miou_percent": verified["score"]["miou_percent"],
        "miou_difference_points": verified["miou_difference_points"],
        "agreeing_percent": verified["agreeing_percent"],
        "ties": verified["ties"],
        "flips": verified["flips"],
        "findings": verified["findings"],
        **{key: trained[key] for key in ("steps", "classes_in_map")},
        "protocol": verified["protocol"],
    }


def engine_outcome(file: Path, folder: Path) -> str:
    """What came of building an engine of a file in a folder: `built`, or why it is not."""
    try:
        require("engines", "tensorrt-rtx", "tensorrt_rtx")
        tensorrt = import_module("tensorrt_rtx")
        options = BuildOptions(targets=_TARGETS)
        build_engine(file, folder / f"{file.stem}.engine", tensorrt, options)
    except IcnetError as error:
        return str(error)
    return "built"


def _of_floats(precision: str) -> bool:
    return not PRECISIONS[precision].calibrated


def record(folder: Path) -> dict[str, Any]:
    """The JSON form of what a run of the example left in a folder.

    Raises:
        InputError: there is none.
    """
    import torch

    results = sorted(folder.glob("*.json"))
    if not results:
        raise InputError(f"{folder} holds no result: run examples/own_network/run.py --out first")
    rows, engines = [], {}
    with TemporaryDirectory() as made:
        for path in tqdm(results, desc="networks", unit="network", disable=None):
            trained = torch.load(path.with_suffix(".pth"), weights_only=True)
            parity = parse(path.read_text("utf-8"))["parity"]
            rows += [_row(one, trained) for one in parity["rows"] if _of_floats(one["precision"])]
            for file in read_artefacts(folder / path.stem):
                if file.metadata is None or _of_floats(file.metadata.precision):
                    engines[file.path.name] = engine_outcome(file.path, Path(made))
    return {
        "schema": _SCHEMA,
        "kind": "own_networks",
        "date": datetime.now(UTC).date().isoformat(),
        "rows": rows,
        "engines": engines,
        "machine": machine(),
        "versions": versions(),
    }


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """The table of recorded results, a line a network."""
    header = (
        *("network", "steps", "classes in its map", "verdicts", "float32, pixels alike %"),
        *("float16, values rounded, %", "its mIoU, points", "engines"),
    )
    lines = []
    for result in results:
        if result["kind"] != "own_networks":
            continue
        networks: dict[str, list[Mapping[str, Any]]] = {}
        for row in result["rows"]:
            name = row["file"].removesuffix(f"-{row['precision']}.onnx")
            networks.setdefault(name, []).append(row)
        lines += [_line(name, rows, result["engines"]) for name, rows in networks.items()]
    return Table(header, lines).markdown()


def _line(
    name: str, rows: Sequence[Mapping[str, Any]], engines: Mapping[str, str]
) -> tuple[str, ...]:
    floats = [row for row in rows if row["precision"] == "fp32"]
    [half] = [row for row in rows if row["runtime"] == ROUNDED]
    built = {engines.get(row["file"], "-") for row in rows}
    return (
        name,
        str(half["steps"]),
        str(half["classes_in_map"]),
        ", ".join(sorted({row["verdict"] for row in rows})),
        f"{min(row['agreeing_percent'] for row in floats):.4f}",
        f"{half['agreeing_percent']:.4f}",
        bounded(*(half["miou_difference_points"][end] for end in ("value", "low", "high"))),
        ", ".join(sorted(built)),
    )


def _arguments() -> argparse.ArgumentParser:
    p = parser(
        "python -m tools.own_networks",
        "Records the results of examples/own_network/run.py.",
        "python -m tools.own_networks runs/own_network --json own-networks.json",
    )
    p.add_argument("folder", type=Path, metavar="OUT", help="of examples/own_network/run.py")
    p.add_argument("--json", type=Path, required=True, metavar="FILE", help="where to record it")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = _arguments().parse_args(argv)
    write_json(args.json, record(args.folder))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
