"""`python -m tools.int8_networks OUT`: what 8 bits cost seven networks, and what they bring.

`examples/own_network/run.py --out OUT` trained and exported five of them. The kit's own two join
them here: BiSeNet V2, which `icnet train` trains on the same scenes, and ICNet, whose weights are
the shipped ones. Each float32 file is quantized in every placement on scenes of the training split,
and held to it by `icnet verify` on scenes that no training saw, timed in turn with it, and built
with TensorRT for RTX. What fails is recorded, and the others go on.
"""

import argparse
import runpy
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from os.path import isfile
from pathlib import Path
from typing import Any

import onnx
from tqdm import tqdm

from icnet_deploy.benchmarks.measurement import ratio_of_medians, read_measurements
from icnet_deploy.calibration.placements.registry import PLACEMENTS, cpu_runtime
from icnet_deploy.calibration.products import products
from icnet_deploy.calibration.sensitivity.report import points_text
from icnet_deploy.command import command, count, parser
from icnet_deploy.documents import parse
from icnet_deploy.errors import CheckFailed, InputError
from icnet_deploy.files import make_folder, write_json
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.precisions import PRECISIONS
from icnet_deploy.processes import run_tool
from icnet_deploy.report.tables import Table, number
from icnet_deploy.runtime.machine import machine, versions
from tools.own_networks import engine_outcome

_SCHEMA = 1
_STREETS = Path(__file__).parents[1] / "examples" / "own_network" / "streets.py"
_FLOAT = next(row.name for row in PRECISIONS.values() if row.bits == 32)
_FLOATS = tuple(row.name for row in PRECISIONS.values() if not row.calibrated)
"""The precisions of its float files; float16's is verified, too, for the record of accuracy."""

_SIZE = "128x256"
"""Of the drawn streets, HEIGHTxWIDTH."""

_SEEDS = {"train": 300, "val": 7}
"""Split -> the seed of its scenes of 19 classes; the streets have seeds of their own."""

_LEAST_MIOU = 30.0
_LEAST_IOU = 60.0
"""Percent: a network that knows less shows little of what 8 bits take from it. The first is of all
classes, the second of the one class that a network tells from the rest."""


_LEAST_SHARE = 85.0
"""Percent of the multiply-adds of a network of convolutions that are in 8 bits, unless blocks were
freed to keep the budget."""


@dataclass(frozen=True)
class _Network:
    """One of the seven.

    Attributes:
        name: what its files are called.
        data: what it is calibrated and scored on: `streets`, `road` or `scenes`.
        layout: of that, as `--dataset` has it.
        size: of its file, HEIGHTxWIDTH.
        config: that `icnet train` trains it with; None: the example has trained it.
        shipped: whether its weights are the shipped ones.
        alone: the class that it tells from the rest; None: it knows several.
        attention: whether it is of attention: its share and its time are stated, no more.
    """

    name: str
    data: str = "streets"
    layout: str = "folder"
    size: str = _SIZE
    config: str | None = None
    shipped: bool = False
    alone: str | None = None
    attention: bool = False

    @property
    def origin(self) -> str:
        """Where its weights come from, in words."""
        if self.shipped:
            return "the shipped checkpoint"
        return f"icnet train --config {self.config}" if self.config else "examples/own_network"


_NETWORKS = {
    one.name: one
    for one in (
        _Network("icnet", "scenes", "scenes", "256x512", shipped=True),
        _Network("lraspp"),
        _Network("unet"),
        _Network("deeplabv3plus"),
        _Network("segformer", attention=True),
        _Network("bisenetv2", config="bisenetv2-demo"),
        _Network("road", "road", alone="road"),
    )
}


def _icnet(*arguments: object, allowed: Sequence[int] = (0,)) -> str:
    """Runs `icnet`; returns what it said.

    Raises:
        CheckFailed: its exit code is none of those that are allowed.
    """
    done = run_tool([sys.executable, "-m", "icnet_deploy", *map(str, arguments)])
    if done.returncode not in allowed:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise CheckFailed(f"icnet {arguments[0]} ended with {done.returncode}: {last}")
    return done.stdout


def _draw(out: Path, network: _Network, counts: Mapping[str, int]) -> Path:
    """The scenes of a network's kind of data; the same ones each time."""
    folder = out / "quantized" / "data" / network.data
    wanted = {"size": network.size, **counts}
    stamp = folder.with_suffix(".json")
    if isfile(stamp) and parse(stamp.read_text("utf-8")) == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    if network.layout == "folder":
        height, width = map(int, network.size.split("x"))
        streets = runpy.run_path(str(_STREETS))
        streets["write_streets"](folder, streets[network.data.upper()], counts, (height, width))
    else:
        for split, number in counts.items():
            drawn = ("--count", number, "--size", network.size, "--seed", _SEEDS[split])
            _icnet("scenes", folder, *drawn, "--split", split)
    write_json(stamp, wanted)
    return folder


def _float_files(network: _Network, out: Path) -> Path:
    """The network's float files, in the folder where its 8-bit ones will be; gives float32's.

    Raises:
        InputError: the example has not made them.
        CheckFailed: it cannot be trained or exported.
    """
    folder = out / "quantized" / network.name
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    files = {name: folder / f"{network.name}-{name}.onnx" for name in _FLOATS}
    weights = out / f"{network.name}.safetensors"
    if network.config and not isfile(weights):
        data = ("--dataset", network.layout, "--data", out / "data" / network.data)
        _icnet("train", *data, "--config", network.config, "-o", weights)
    of = ("--weights", weights) if network.config else ()
    for name, file in files.items():
        made = out / network.name / file.name
        if network.shipped or network.config:
            _icnet("export", *of, "--size", network.size, "--precision", name, "-o", file)
        elif isfile(made):
            shutil.copyfile(made, file)
        elif name == _FLOAT:
            raise InputError(
                f"there is no {made}: run examples/own_network/run.py --out {out} first"
            )
    return files[_FLOAT]


def _verified(folder: Path, data: Sequence[object]) -> dict[str, Any]:
    """What `icnet verify` says of a folder; that a file is past its budget is an answer, too."""
    result = folder / "verify.result"
    _icnet("verify", folder, *data, "--json", result, allowed=(0, 1))
    verified: dict[str, Any] = parse(result.read_text("utf-8"))
    return verified


def _compared(verified: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of `icnet verify`: a file on a runtime each."""
    return list(verified["parity"]["rows"]) if verified["parity"] else []


def _time(floats: Path, file: Path, runtime: str, rounds: int) -> dict[str, Any]:
    """Milliseconds from an image to its labels on a runtime, of both files, in turn."""
    result = file.with_suffix(".times")
    size = "x".join(map(str, read_onnx_metadata(file).size or ()))
    how = ("--runtime", runtime, "--device", "cpu", "--size", size, "--rounds", rounds)
    _icnet("benchmark", "latency", floats, file, *how, "--json", result)
    a, b = (each.values["total"] for each in read_measurements(result))
    ratio = ratio_of_medians(b["samples_ms"], a["samples_ms"], in_turn=True)
    return {
        "rounds": rounds,
        f"{_FLOAT}_median_ms": a["median_ms"],
        "median_ms": b["median_ms"],
        "ratio": ratio and {"value": ratio.value, "low": ratio.low, "high": ratio.high},
    }


def _row(file: Path, verified: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of an 8-bit file: of its row of `icnet verify`, and of its graph."""
    placement = read_onnx_metadata(file).precision
    runtime = cpu_runtime(placement)
    counted = products(onnx.load(file))
    kept: dict[str, Any] = {
        "placement": placement,
        "runtime": runtime,
        "share_percent": round(100 * counted.share, 2),
        "macs": counted.total,
        "in_float": counted.float_layers(),
        "unknown": counted.unknown,
        "tools": dict(read_onnx_metadata(file).tools),
    }
    for row in _compared(verified):
        if (Path(row["artefact"]).name, row["runtime"]) == (file.name, runtime):
            names = (
                *("sha256", "size", "verdict", "findings", "miou_difference_points"),
                *("worst_class", "agreeing_percent", "protocol"),
            )
            return kept | {name: row[name] for name in names}
    reasons = [f["reason"] for f in verified["failures"] if f["name"] == file.name]
    return kept | {"verdict": "failed", "failures": reasons}


def _known(network: _Network, verified: Mapping[str, Any]) -> dict[str, float]:
    """How much the float32 file knows, and how much it must; 0 where it could not be compared."""
    scores = [row["score"] for row in _compared(verified) if row["precision"] == _FLOAT]
    miou = scores[0]["miou_percent"] if scores else 0.0
    alone = scores[0]["iou_percent"].get(network.alone) if scores else None
    return {
        "miou_percent": miou,
        "iou_percent": miou if alone is None else alone,
        "least_iou_percent": _LEAST_IOU if network.alone else _LEAST_MIOU,
    }


def _measure(
    found: dict[str, Any], network: _Network, out: Path, counts: Mapping[str, int], rounds: int
) -> None:
    """Writes into `found` what is found of a network; what was found before a failure stays."""
    split = ("--dataset", network.layout, "--data", _draw(out, network, counts))
    floats = _float_files(network, out)
    files = []
    for placement in PLACEMENTS:
        file = floats.with_name(f"{network.name}-{placement}.onnx")
        how = ("--placement", placement, "--calibration", floats.with_suffix(".ranges"))
        try:
            _icnet("quantize", floats, *split, *how, "-o", file)
            files.append(file)
        except CheckFailed as error:
            found["failures"].append(f"{placement}: {error}")
    verified = _verified(floats.parent, split)
    found["rows"] = [_row(file, verified) for file in files]
    found |= _known(network, verified)
    if found["iou_percent"] < found["least_iou_percent"]:
        known = f"{found['iou_percent']} %, at least {found['least_iou_percent']:g} % is asked for"
        found["failures"].append(f"IoU of {network.alone or 'all classes'} is {known}")
    for row, file in zip(found["rows"], files, strict=True):
        row["time"] = _time(floats, file, row["runtime"], rounds)
        if not PRECISIONS[row["placement"]].refusal("tensorrt-rtx", "cuda", engines=True):
            row["engine"] = engine_outcome(file, floats.parent)


def record(out: Path, names: Sequence[str], counts: Mapping[str, int], rounds: int) -> Any:
    """The JSON form of what 8 bits do to these networks.

    Args:
        out: the folder of `examples/own_network/run.py --out`.
        names: of `_NETWORKS`.
        counts: split -> how many scenes are drawn of it.
        rounds: of the timing.
    """
    chosen = [_NETWORKS[name] for name in names]
    networks = []
    with tqdm(chosen, desc="networks", unit="network", disable=None) as bar:
        for network in bar:
            bar.set_postfix_str(network.name)
            found: dict[str, Any] = {"name": network.name, "origin": network.origin, "failures": []}
            try:
                _measure(found, network, out, counts, rounds)
            except (CheckFailed, InputError) as error:
                found["failures"].append(str(error))
            networks.append(found)
    return {
        "schema": _SCHEMA,
        "kind": "int8_networks",
        "date": datetime.now(UTC).date().isoformat(),
        "scenes": dict(counts),
        "networks": networks,
        "machine": machine(),
        "versions": versions(),
    }


_HEADER = (
    *("network", "float32, mIoU %", "file", "runs on", "verdict", "mIoU, points", "lowest class"),
    *("labels alike %", "multiply-adds in 8 bits %", "time to float32", "in float", "engine"),
)


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """The table of recorded results, a line a file."""
    lines = [
        _line(network, row)
        for result in results
        if result["kind"] == "int8_networks"
        for network in result["networks"]
        for row in network.get("rows", ())
    ]
    return Table(_HEADER, lines, left=5).markdown()


def _line(network: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    differences = ["-", "-", "-"]
    if "worst_class" in row:
        lowest = row["worst_class"]
        differences = [
            points_text(row["miou_difference_points"]),
            f"{points_text(lowest['points'])} {lowest['name']}",
            f"{row['agreeing_percent']:.2f}",
        ]
    ratio = row.get("time", {}).get("ratio")
    layers = [*row["in_float"]]
    named = ", ".join(layers[:3]) + f" and {len(layers) - 3} more" * (len(layers) > 3)
    return [
        network["name"],
        number(network.get("miou_percent"), 1),
        row["placement"],
        row["runtime"],
        row["verdict"],
        *differences,
        f"{row['share_percent']:.1f}",
        f"{ratio['value']:.2f}" if ratio else "-",
        named or "nothing",
        row.get("engine", "-"),
    ]


def _arguments() -> argparse.ArgumentParser:
    p = parser(
        "python -m tools.int8_networks",
        "Quantizes seven networks, verifies and times them, and fails if one does not pass.",
        "python -m tools.int8_networks runs/own_network --json int8-networks.json",
    )
    p.add_argument("out", type=Path, metavar="OUT", help="of examples/own_network/run.py")
    p.add_argument(
        "--networks",
        nargs="+",
        choices=_NETWORKS,
        default=[*_NETWORKS],
        metavar="NAME",
        help=f"(default: {', '.join(_NETWORKS)})",
    )
    p.add_argument("--train", type=count, default=32, help="scenes to calibrate on (%(default)s)")
    p.add_argument("--val", type=count, default=200, help="scenes to score on (%(default)s)")
    p.add_argument("--rounds", type=count, default=40, help="of the timing (%(default)s)")
    p.add_argument("--json", type=Path, required=True, metavar="FILE", help="where to record it")
    return p


def _lacks(network: _Network, found: Mapping[str, Any]) -> list[str]:
    """What a network does not pass, in words."""
    lacks = list(found["failures"])
    for row in found.get("rows", ()):
        placement, ratio = row["placement"], row.get("time", {}).get("ratio")
        if row["verdict"] != "within":
            lacks.append(f"{placement} is {row['verdict']}")
        if row.get("engine", "built") != "built":
            lacks.append(f"{placement}: {row['engine']}")
        if network.attention:
            continue
        if row["share_percent"] < _LEAST_SHARE and "float" not in row["tools"]:
            lacks.append(f"{placement} has {row['share_percent']} % of its products in 8 bits")
        if ratio and ratio["value"] >= 1:
            lacks.append(f"{placement} takes {ratio['value']:.2f} of float32's time")
    return lacks


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = _arguments().parse_args(argv)
    counts = {"train": args.train, "val": args.val}
    result = record(args.out, args.networks, counts, args.rounds)
    write_json(args.json, result)
    print(markdown([result]))
    lacks = {one["name"]: _lacks(_NETWORKS[one["name"]], one) for one in result["networks"]}
    if failed := [f"{name} ({'; '.join(why)})" for name, why in lacks.items() if why]:
        raise CheckFailed(
            f"{len(failed)} of {len(lacks)} networks do not pass: {'. '.join(failed)}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
